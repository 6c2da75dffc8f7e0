from llmlab.cli.words import Commands


def doctor(args):
    return 0


def add_commands(commands: Commands) -> None:
    commands.add("doctor", doctor, "check")
