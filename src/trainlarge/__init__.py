"""How large should I train, for how long, and how far should I compress it?"""
