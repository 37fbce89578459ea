"""Small files of the shapes that people bring, with a contract of numbers for each: `FILES`. The rows are drawn, not real."""

from tests.field_files import bank_calls, credit_cards, electricity, machine_sensors

FILES = {
    module.__name__.rpartition(".")[2]: module for module in (electricity, bank_calls, machine_sensors, credit_cards)
}
