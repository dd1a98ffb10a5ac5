"""The results of each command as text for people, a module a verb. `autotune.jsonable` makes JSON of them.

Modules import the tuner only for its types: importing it takes a second, and a dry run does not need it.
"""
