"""Sound as bytes: formats, milliseconds and samples, G.711, resampling, WAV.

The lowest layer but one. `formats` is plain arithmetic and safe for the session machine; the modules that convert
samples need numpy and are imported by those who convert, never by `import vivavoce`.
"""
