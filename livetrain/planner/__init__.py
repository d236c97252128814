"""What a run on N GPUs would take, before it costs anything: `livetrain plan`.

`predict` has the formulas, `hardware` the facts of machines, `inputs` what a run asks of them, `check` compares the
formulas with every measurement in benchmarks/.
"""
