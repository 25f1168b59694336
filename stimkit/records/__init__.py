"""What is known of a stimulus, and tables of it. No torch.

migrations  steps from older schemas
stages      losses by stage, and attempts: the parts of a record
schema      Record: the typed schema, its columns, its JSON
measurements  what was measured of finished files later
acceptance  whether a stimulus meets the rules
record      a made, lost or judged cell -> Record
tables      records -> data frame, CSV
dataset     records -> xarray, NetCDF
selection   conditions on the manifest
methods     words about a run
bibliography  what to cite, as BibTeX
"""
