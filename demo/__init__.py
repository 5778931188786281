"""The embedded default: a small world in which all four stages run on a laptop, offline.

For now its models have random weights and its speech is a code of tones; what the stages learn from
it proves the path, not the method.
"""
