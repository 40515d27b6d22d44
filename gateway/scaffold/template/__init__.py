"""A plugin with every hook, its tests and its package: what new plugins are cut out of.

`NewPlugin`, `New-Plugin`, `new-plugin` and `new_plugin` become the name of the plugin.
"""
