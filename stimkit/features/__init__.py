"""What the network makes of stimuli: responses, Gram matrices and their means, for models and statistics.

measuring    images of a run -> features by layer, one after the other
components   principal components of features that are too large for memory
writing      features as NetCDF
"""
