"""The command `tinygrad-rnn`: its parser and what each of its subcommands does."""
