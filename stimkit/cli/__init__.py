"""The commands: each parses, calls one library function, and translates its result.

terminal     text that can be seen
progress     how far a command is
display      what the terminal shows
doctor       what this machine has
weights      `stimkit weights …`
runs         status, cite, diff, verify, regenerate, archive
audit        audit, report, audit-images
experiments  trials, export, join
measures     measure, distances, features
scaling      simulate, scale, norm
run          run, collect
main         plan, schema, init, doctor; the entry point
"""
