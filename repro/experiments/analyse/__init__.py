"""What was selected (section 6): each selection described, and any two compared, per domain. Trains
nothing.
"""
