"""What is reported of a run.

contents  what a report shows, as JSON values
report    a run -> one HTML file (its parts are in page/)
watching  a run as it fills, as a page of a small server
"""
