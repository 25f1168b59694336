"""What observers see and answer.

trials          rooms of its own: trial lists
export          rooms of its own: other programs' formats
trial_rules     what can be wrong with a trial design; names of columns
pages           what participants read and are asked beside the trials
response_files  files of answers -> tables
response_units  times in seconds, right and wrong as 1 and 0
trial_levels    what the stimuli of a trial share
responses       answers beside the manifest
"""
