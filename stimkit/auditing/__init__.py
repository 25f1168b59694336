"""Is a run what it claims to be; make it again.

findings         names of findings, and what they mean
table_agreement  whether tables are those of the records
evidence         the files of one cell, read once, and how they differ from its record
verification     files, records, tables against each other
remeasurement    losses of finished images, measured anew
losses           recorded losses against those measured again
rules            rules over the table of stimuli
recognition      what a classifier takes stimuli and their images for, against the records
audit            one pass over the stimuli, then the rules
saving           audits as files
image_set        audits of images of any origin
regeneration     stimuli made again, and how equal they are
"""
