"""Trial lists of an experiment: which stimuli each participant sees, in which blocks and order.

design      TOML text -> TrialDesign
units       stimuli -> possible trials, by their form
forms       what a trial shows where and when, what can be answered, what is right
sampling    which of the possible trials a participant gets
material    a run's stimuli as the trials that a design allows
assignment  participants to groups and orders of blocks
sequence    an order of trials that keeps rules about neighbours
placement   degrees on the screen, and frames
showing     places of stimuli, order of trials
lists       design + run -> TrialLists
balance     TrialLists -> counts
saving      trial lists as files
"""
