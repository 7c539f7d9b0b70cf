"""Values and rules of parking: lots, tariffs, prices, reservations, availability, advice. Standard library only, pure."""
