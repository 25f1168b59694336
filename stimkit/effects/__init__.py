"""What the factors of a design explain. No torch.

chance     how much of it chance explains, and how much a design can find
multivariate  how much of the distances between stimuli each factor explains
variance   how much of a variable's variance each factor explains
"""
