"""What answers say of stimuli: perceptual scales, preferences, thresholds, and answers of simulated observers.

answers      joined answers -> trials of one kind, and what was answered
glm          binomial regression
bootstrap    a model and answers -> estimates with intervals and goodness of fit
difference   maximum likelihood difference scaling
preference   Bradley-Terry
psychometric thresholds
similarity   multidimensional scaling of triads
norms        how stimuli were named and rated, as columns of the manifest
scales       the same for each participant and for all, as tables and a picture
observers    simulated observers: a trial list -> answers as the exports save them
"""
