"""What the factors of a design explain. No torch.

variance   how much of a variable's variance each factor explains
"""
