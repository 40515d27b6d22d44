"""How the reasons begin that mail is held for where the gateway itself gives them. Pure.

People read them, commands select by them, and metrics count by them.
"""

DAMAGED = "damaged on disk: "
DIED = "a process ended "
SALVAGED = "salvaged from "
PAUSED = "paused: "
BY_HAND = "held by hand"
"""All of it, unless the person gave another one."""
