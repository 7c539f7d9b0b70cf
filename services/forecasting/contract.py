"""Forecasting's decisions on the ledger: which models it trained, from what. Thin: a registry that nobody can rewrite."""

from __future__ import annotations

from typing import Any

from citykit.ledger.contract import JsonObject, Refusal, Transaction, evaluates, submits
from services.forecasting.domain.cards import card_fault


class Models:
    """Trained models: a card never changes."""

    name = "models"

    @submits(by=("forecasting",))
    def register(self, tx: Transaction, *, card: dict[str, Any]) -> JsonObject:
        """Registers a model by its card (city.model.v1); the same card again is no change."""
        fault = card_fault(card)
        if fault:
            raise Refusal("card-invalid", fault)
        key = f"model/{card['model']}"
        before = tx.get(key)
        if before is not None and before != card:
            raise Refusal("model-registered", f"the model {card['model']} is registered with another card")
        if before is None:
            tx.put(key, card)
            tx.emit("ModelRegistered", {"model": card["model"], "group": card["group"]})
        return {"model": card["model"]}

    @evaluates
    def get(self, tx: Transaction, *, model: str) -> Any:
        """The card, or None."""
        return tx.get(f"model/{model}")


CONTRACTS: tuple[object, ...] = (Models(),)
