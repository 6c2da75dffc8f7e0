"""How long a test waits at most for what another process or thread does: a busy machine is no fault."""

SECONDS = 120.0
WAIT = 120_000  # milliseconds, for Qt
