"""The proxy itself evaluated with the heads of each arm masked (table 6); seeds are draws of the control
heads.
"""
