"""docs/firewall.md, made from real rules: `python -m tests.golden` writes it (`make docs`), a test compares it.

`scenarios` are made with the drivers' plans, with fixed names and addresses; `rules` has the real backend apply them in a network namespace
of its own and reads back what nft and iptables list there; `sentences` says what each set, map and chain is for; `document` is the text.
"""
