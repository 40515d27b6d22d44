"""Conformance: whether a plugin keeps the rules, found out by running it on everything.

report = check_plugin("./site/footer.py", {"text": "Example Inc."})
assert report.good, str(report)
"""

from gateway.testing.conformance.check import check_plugin, plugins_of
from gateway.testing.conformance.report import Finding, Report, Result

__all__ = ["Finding", "Report", "Result", "check_plugin", "plugins_of"]
