NOTES={}
def tables(a,b): return {}
