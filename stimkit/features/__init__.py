"""What the network makes of stimuli: responses, Gram matrices and their means, for models and statistics.

measuring         images of a run -> features by layer, one after the other
components        inner products and principal components of features that are too large for memory
dissimilarities   of stimuli or conditions, from these inner products
writing           all of this as NetCDF
comparing         distances between stimuli: neighbours, a map, what factors explain
matlab            and as a .mat file
"""
