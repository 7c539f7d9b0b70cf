"""One module per `city` command: `add(subparsers)` declares it, `run(arguments) -> int` is what it does."""
