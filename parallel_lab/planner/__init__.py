"""What a layout of a training run costs: memory, time, money; fitted to published runs; and which layout to take."""
