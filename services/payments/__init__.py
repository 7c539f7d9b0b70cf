"""Every penny in the city: double entry, holds and captures, a provider behind an adapter, statements that prove themselves."""
