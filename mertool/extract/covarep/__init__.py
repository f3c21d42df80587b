"""COVAREP's 74 voice features, written from their description.

features.py is the whole chain, `covarep(x, fs)`; extractor.py makes mertool's extractors of it.

Its stages, each usable alone:
- residual.py: LP residual, polarity.
- pitch.py: F0 and voicing (SRH).
- gci.py: glottal closure instants (SEDREAMS).
- iaif.py, glottal.py, h1h2.py: glottal flow; NAQ, QOQ, H1H2, PSP.
- wavelets.py: MDQ, peakSlope.
- harmonics.py: amplitudes and phases of the harmonics.
- rd.py, with the search of minimise.py: Rd.
- envelope.py: true envelope, MCEP.
- phase.py, with the filters of framefilters.py: HMPDM, HMPDD.
- creak.py, with creak_measures.py and ishi.py: inputs and posterior of the creak detector.

signals.py is what they share.
"""
