"""Trial lists of an experiment: which stimuli each participant sees, in which blocks and order.

trial_design.toml -> design.TrialDesign         what is asked for
units                stimuli -> possible trials (single, pair, triplet)
squares              Latin squares and Williams designs
sampling             which of the possible trials a participant gets
sequence             an order of trials that keeps rules about neighbours
lists                design + run -> TrialLists  everything together
balance              TrialLists -> counts
"""
