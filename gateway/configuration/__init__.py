"""gateway.yaml: read, checked, and turned into frozen typed objects."""
