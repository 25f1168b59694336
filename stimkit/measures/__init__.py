"""What studies measure of finished stimuli beside losses: predictors of what people see in them.

orientations  entropies of edges, energy by orientation
phog          self-similarity, complexity, anisotropy
variances     sparseness and variability of a network's responses
similarity    MS-SSIM, LPIPS, DISTS
observers     losses by other networks
measuring     all of this, into tables of a run folder
"""
