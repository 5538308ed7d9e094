"""SEResNet of network.py in 2 bits, on scikit-learn's digits: no download, about two minutes of one core."""

from plq.config.load import default


def get_config():
    config = default()
    config.data.name, config.data.batch_size = "digits", 64
    config.model.name = "network:SEResNet"
    config.model.options.widths = (16, 32)
    config.quant.weights, config.quant.weight_bits = "lsq", 2
    config.quant.activations, config.quant.activation_bits = "lsq", 2
    config.quant.rules = [
        {"pattern": "stem", "weight_bits": 8, "activation_bits": 32, "expand": False},
        {"pattern": "*/gate/*", "weight_bits": 8, "activation_bits": 8, "expand": False},
        {"pattern": "head", "weight_bits": 8, "activation_bits": 8, "expand": False},
        {"pattern": "block*"},
    ]
    config.optimizer.learning_rate, config.optimizer.schedule = 0.005, "cosine"
    config.train.epochs = 16.0
    return config
