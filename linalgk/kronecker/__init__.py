"""Kronecker products and their algebra."""

from typing import Any

RECORDS: tuple[Any, ...] = ()
