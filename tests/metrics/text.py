"""The text that Prometheus reads, taken apart by prometheus-client's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Told:
    """What `/metrics` told.

    Attributes:
        kinds: the kind of each metric, by its name as it is exposed.
        samples: values by name and labels.
    """

    def __init__(self, text: bytes) -> None:
        self.kinds: dict[str, str] = {}
        self.samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(text.decode()):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert name not in self.kinds
            self.kinds[name] = family.type
            for sample in family.samples:
                known = self.samples.setdefault(sample.name, {})
                labels = tuple(sorted(sample.labels.items()))
                assert labels not in known, f"{sample.name}{labels} twice"
                known[labels] = sample.value

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all samples that have these labels.

        Raises:
            KeyError: there is none.
        """
        wanted = set(labels.items())
        found = [value for key, value in self.samples[name].items() if wanted <= set(key)]
        if not found:
            raise KeyError(f"{name}{labels}")
        return sum(found)
