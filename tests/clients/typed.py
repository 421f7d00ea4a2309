"""What the clients are to make of an answer."""

from typing import Literal

from pydantic import BaseModel, Field


class Street(BaseModel):
    name: str
    number: int | None


class City(BaseModel):
    """A city."""

    name: str
    country: Literal["Italy", "Norway"]
    population: int = Field(ge=1, description="in thousands")
    streets: list[Street]


class GetWeather(BaseModel):
    """The weather in a city."""

    city: str
    unit: Literal["celsius", "fahrenheit"]


class Trip(BaseModel):
    """A trip that a grammar alone can bring to an end."""

    city: Literal["Rome", "Oslo"]
    days: Literal[1, 2, 3]
    alone: bool


class Weather(BaseModel):
    """The weather in a city; of one field, since between two a small model may write blanks without end in a call."""

    city: Literal["Rome", "Oslo"]
