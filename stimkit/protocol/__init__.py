"""What is asked for: a protocol file, validated.

labels        levels as they stand in tables and file names
patterns      file names with placeholders, and the images that they stand for
values        what values of settings can be
settings      the settings of a cell, each with its rule, default and meaning
limits        rules of [accept], limits of [audit]
rules         rules that relate keys
design_rules  rules that relate factors, attributes, conditions, samples
mixes         levels that lie between images
style_maps    styles that are different in different places
shorthand     what a file says in short, written out
sections      the tables of a protocol, but for settings and limits
protocol      TOML text -> Protocol
"""
