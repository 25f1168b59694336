"""TOML that users write: read, located, validated; and documents of older schemas.

lines     the line of each key
messages  broken rules in words; looks into raw documents
spelling  misspelt keys, and what is wrong besides
toml      text -> dictionary -> validated model, with every broken rule at once
notebooks  tables and pictures as HTML
figures   of matplotlib, shown by notebooks
progress  bars, in notebooks and on terminals
cells     what may stand in a table of others
curation  what people decided about finished stimuli
schemas   schemas of files, and the steps from older ones
template  the protocols that `stimkit init` writes, some of published sets
"""
