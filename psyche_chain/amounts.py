"""Token amounts: decimal numbers for people, integer base units on chain."""

from decimal import Decimal, InvalidOperation
from typing import Final

MAX_AMOUNT: Final = 2**62
"""Largest amount in base units that the programs take."""


def parse_amount(text: str, decimals: int) -> int:
    """Base units of an amount that a person wrote.

    Raises:
        ValueError: it is no number, negative, too large, or has more decimals than the mint.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number") from None
    return to_base_units(amount, decimals)


def to_base_units(amount: Decimal, decimals: int) -> int:
    """Base units of a decimal amount, exactly.

    Raises:
        ValueError: it is negative, not finite, too large, or has more decimals than the mint.
    """
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{amount} is not an amount of 0 or more")
    if amount.adjusted() > 19:
        raise ValueError(f"{amount} is too large, at most {format_amount(MAX_AMOUNT, decimals)} are allowed")
    scaled = amount.scaleb(decimals)
    if scaled != scaled.to_integral_value():
        raise ValueError(
            f"{amount} has more than {decimals} decimals" if decimals else f"{amount} is not a whole number"
        )
    if scaled > MAX_AMOUNT:
        raise ValueError(f"{amount} is too large, at most {format_amount(MAX_AMOUNT, decimals)} are allowed")
    return int(scaled)


def format_amount(base_units: int, decimals: int) -> str:
    """An amount for people, without trailing zeros."""
    text = f"{Decimal(base_units).scaleb(-decimals):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
