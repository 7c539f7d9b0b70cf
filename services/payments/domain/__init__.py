"""The rules of money: books, postings, payments, reconciliation. Pure; called by `app` and `contract`."""
