"""Mistakes planted in the layers of the zoo: an edit, the row that should fail, and what it should say."""

from dataclasses import dataclass

from tests.checks.zoo.registry import layers, mutant

GRADIENTS = "gradients agree with differences"
EXIST = "gradients exist"
SECOND = "second-order gradients agree with differences"
INDEPENDENT = "observations are independent in evaluation"
REPEATABLE = "evaluation is repeatable"
STATE = "evaluation changes no state"
TRAINING = "training changes state only"
SAVED = "what training changes is saved"
GROWS = "nothing grows from call to call"
GLOBAL = "global random numbers are left alone"
FINITE = "outputs are finite"
FINITE_STATE = "state stays finite"
SINGLE = "float32 agrees with float64"
FOUND = "every Parameter is found"
OUT = "its own primitives write to out="
TAPE = "no_grad() changes no output"
TYPES = "output types"
SIZES = "output sizes"
ONE = "one observation"
INPUTS = "inputs are left alone"
COMPILED = "compiled replay equals eager"
SIGNATURES = "methods have valid signatures"
SAVE = "save and load"
NESTED = "nested in networks"


@dataclass
class Mistake:
    layer: str
    old: str
    new: str
    row: str
    words: tuple[str, ...]

    def build(self, seed=0):
        return mutant(self.layer, self.old, self.new)(seed)

    @property
    def case(self):
        return layers()[self.layer].case


MISTAKES = {}


def plant(name, layer, old, new, row, *words):
    assert name not in MISTAKES, name
    MISTAKES[name] = Mistake(layer, old, new, row, words)


# fmt: off
# --- statistics and normalisation -----------------------------------------------------------------

plant("bn_batch_statistics_in_evaluation", "batch_norm", "if self.training:", "if True:", STATE, "mean, variance")
plant("bn_mean_detached", "batch_norm", "mean, variance = x.mean(axis=0), x.var(axis=0)",
      "mean, variance = x.mean(axis=0).detach(), x.var(axis=0)", GRADIENTS, "input 0", "'detach' stops")
plant("bn_variance_detached", "batch_norm", "dl.sqrt(variance + 1e-3)", "dl.sqrt(variance.detach() + 1e-3)",
      GRADIENTS, "input 0", "'detach' stops")
plant("bn_mean_as_array", "batch_norm", "self.mean, self.variance = dl.zeros(features), dl.ones(features)",
      "self.mean, self.variance = dl.Parameter(dl.zeros(features)), dl.ones(features)", TRAINING, "mean", "optimizer")
plant("bn_running_mean_replaced", "batch_norm", "self.mean.assign((1 - m) * self.mean + m * mean.detach())",
      "self.mean = (1 - m) * self.mean + m * mean.detach()", TRAINING, "mean", "assign()")
plant("bn_python_counter", "batch_norm", "m = self.momentum",
      "self.n = getattr(self, 'n', 0) + 1\n            m = 1 / self.n", SAVED, "n")
plant("bn_unbiased_of_one", "batch_norm", "x.mean(axis=0), x.var(axis=0)", "x.mean(axis=0), x.var(axis=0, ddof=1)",
      FINITE_STATE, "variance", "one observation")
plant("bn_wrong_axis", "batch_norm", "mean, variance = self.mean, self.variance",
      "mean, variance = x.mean(axis=0), self.variance", INDEPENDENT, "output 0")
plant("bn_state_in_no_grad_statistics", "batch_norm", "x.var(axis=0)\n", "dl.tensor(x.numpy().var(axis=0))\n",
      GRADIENTS, "input 0", "numpy()")
plant("ln_batch_axis", "layer_norm", "x.mean(axis=-1, keepdims=True)\n", "x.mean(axis=0, keepdims=True)\n",
      INDEPENDENT, "output 0")
plant("ln_detached_variance", "layer_norm", "dl.sqrt(variance + 1e-5)", "dl.sqrt(variance + 1e-5).detach()",
      GRADIENTS, "input 0", "'detach' stops the gradient", "mutant")
plant("ln_no_epsilon_root", "layer_norm", "dl.sqrt(variance + 1e-5)", "dl.sqrt(variance - 10)", FINITE, "'sqrt'")
plant("ln_offset_forgotten", "layer_norm", "* self.gain + self.offset", "* self.gain", EXIST, "offset",
      "does not use it")
plant("ln_gain_data", "layer_norm", "* self.gain +", "* dl.tensor(self.gain.data) +", EXIST, "gain")
plant("ln_cancelling_variance", "layer_norm", "variance = (centered * centered).mean(axis=-1, keepdims=True)",
      "variance = (x * x).mean(axis=-1, keepdims=True) - x.mean(axis=-1, keepdims=True) ** 2", SINGLE,
      "cancel")
plant("rms_no_grad", "rms_norm", "return x / dl.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * self.gain",
      "with dl.no_grad():\n            size = dl.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6)\n"
      "        return x / size * self.gain", GRADIENTS, "no_grad()")
plant("rms_gain_plain_tensor", "rms_norm", "dl.Parameter(dl.ones(features))",
      "dl.tensor(dl.ones(features), requires_grad=True)", FOUND, "gain", "dl.Parameter")
plant("instance_over_batch", "instance_norm", "mean = x.mean(axis=(1, 2), keepdims=True)",
      "mean = x.mean(axis=(0, 1, 2), keepdims=True)", INDEPENDENT, "output 0")
plant("instance_numpy_variance", "instance_norm", "variance = x.var(axis=(1, 2), keepdims=True)",
      "variance = dl.tensor(x.data.var(axis=(1, 2), keepdims=True))", GRADIENTS, "input 0")
plant("weight_norm_cached_length", "weight_norm", "length = dl.sqrt((self.direction * self.direction).sum(axis=0))",
      "if not hasattr(self, 'kept'):\n            self.kept = numpy.sqrt((self.direction.numpy() ** 2).sum(axis=0))\n"
      "        length = dl.tensor(self.kept)", SAVE, "stale cache")
plant("spectral_u_in_evaluation", "spectral_norm", "if self.training:\n            self.u.assign(u)", "self.u.assign(u)",
      STATE, "u")
plant("spectral_u_as_array", "spectral_norm", "self.u.assign(u)", "self.u = u.numpy()", TRAINING, "u")
plant("frn_threshold_detached", "filter_response_norm", ", self.threshold)", ", self.threshold.detach())", EXIST,
      "threshold", "'detach'")
plant("whitening_steps_python", "whitening", "self.steps.assign(self.steps + 1)",
      "self.count = getattr(self, 'count', 0) + 1\n            self.steps.assign(dl.full((), float(self.count)))",
      SAVED, "count")
plant("whitening_nan_forever", "whitening", "(x * x).mean(axis=0)", "x.var(axis=0, ddof=1)", FINITE_STATE, "second")

# --- images ---------------------------------------------------------------------------------------

plant("conv_bias_summed", "convolution", "+ self.bias)", "+ self.bias.detach())", EXIST, "bias", "'detach'")
plant("conv_relu_by_data", "convolution", "return dl.relu(dl.conv2d(x, self.kernel, padding=\"same\") + self.bias)",
      "y = dl.conv2d(x, self.kernel, padding=\"same\") + self.bias\n"
      "        return y * dl.tensor((y.data > 0).astype(float))", TYPES, "float64")
plant("conv_input_changed", "convolution", "return dl.relu(", "x.data -= x.data.mean()\n        return dl.relu(", INPUTS,
      "input 0")
plant("loop_conv_tap_left_out", "loop_convolution", "for i, tap in enumerate(self.taps):",
      "for i, tap in enumerate(self.taps[:2]):", EXIST, "taps.2")
plant("loop_conv_data_slice", "loop_convolution", "x[:, i : i + steps] @ tap", "dl.tensor(x.data[:, i : i + steps]) @ tap",
      GRADIENTS, "input 0", ".data")
plant("residual_branch_detached", "residual", "self.scale * self.second(dl.relu(self.norm(self.first(x))))",
      "self.scale * self.second(dl.relu(self.norm(self.first(x.detach()))))", GRADIENTS, "input 0", "'detach'")
plant("se_gate_over_batch", "squeeze_excite", "pooled = x.mean(axis=(1, 2))",
      "pooled = x.mean(axis=(0, 1, 2), keepdims=True).reshape(1, -1) + 0 * x.mean(axis=(1, 2))", INDEPENDENT)
plant("se_gate_constant", "squeeze_excite", "return x * gate.reshape", "return x * gate.detach().reshape", EXIST,
      "squeeze.weight", "'detach'")
plant("pixel_shuffle_batch", "pixel_shuffle", "reshape(b, h, w, r, r, c)", "reshape(h, w, b, r, r, c).transpose(2, 0, 1, 3, 4, 5)",
      INDEPENDENT)
plant("pyramid_fixed_batch", "spatial_pyramid", ".reshape(x.shape[0], -1)", ".reshape(4, -1)", ONE)
plant("coordinates_float64", "coordinate_convolution", "rows = dl.linspace(-1, 1, h).astype(x.dtype)",
      "rows = dl.tensor(numpy.linspace(-1, 1, h))", ONE, "float64")
plant("unet_skip_detached", "unet", "[skip, dl.upsample2d", "[skip.detach(), dl.upsample2d", GRADIENTS, "down", "'detach'")
plant("capsules_routing_no_grad", "capsules", "share = dl.softmax(logits, axis=2)", "share = dl.softmax(logits, axis=2).detach()",
      GRADIENTS, "weight", "'detach'")
plant("capsules_batch_softmax", "capsules", "dl.softmax(logits, axis=2)", "dl.softmax(logits, axis=0)", INDEPENDENT)
plant("capsules_root_of_zero", "capsules", "dl.sqrt(square + 1e-7)", "dl.sqrt(square - square)", FINITE)
plant("maxout_mean_of_batch", "maxout", "y = x @ self.weight + self.bias", "y = (x - x.mean(axis=0)) @ self.weight + self.bias",
      INDEPENDENT)
# --- sequences ------------------------------------------------------------------------------------

plant("elman_truncated", "elman", "states.append(h)", "states.append(h)\n            h = h.detach()", GRADIENTS, "recurrent",
      "'detach'")
plant("elman_history", "elman", "states.append(h)", "states.append(h)\n            vars(self).setdefault('seen', []).append(float(h.data.sum()))",
      GROWS, "seen")
plant("lstm_cell_detached", "lstm", "dl.sigmoid(f + 1) * c +", "dl.sigmoid(f + 1) * c.detach() +", GRADIENTS, "weight", "'detach'")
plant("lstm_gate_shared_twice", "lstm", "dl.sigmoid(i) * dl.tanh(g)", "dl.sigmoid(i).detach() * dl.tanh(g)", GRADIENTS, "weight")
plant("lstm_python_hidden", "lstm", "h = dl.sigmoid(o) * dl.tanh(c)", "h = dl.sigmoid(o) * dl.tensor(numpy.tanh(c.numpy()))",
      GRADIENTS, "numpy()")
plant("gru_candidate_forgotten", "gru", "h = (1 - z) * h + z * new", "h = (1 - z) * h + z", EXIST, "candidate")
plant("gru_gate_of_the_batch", "gru", "z, r = both", "both = both + 0 * both.max(axis=0) + both.mean(axis=0)\n            z, r = both",
      INDEPENDENT)
plant("attention_detached_scores", "self_attention", "dl.softmax(scores, axis=-1) @ v", "dl.softmax(scores, axis=-1).detach() @ v",
      EXIST, "query", "'detach'")
plant("attention_over_batch", "self_attention", "dl.softmax(scores, axis=-1)", "dl.softmax(scores, axis=0)", INDEPENDENT)
plant("attention_naive_softmax", "self_attention", "dl.softmax(scores, axis=-1) @ v",
      "dl.exp(scores) / dl.exp(scores).sum(axis=-1, keepdims=True) @ v", SINGLE, "'exp'")
plant("attention_key_transposed_by_numpy", "self_attention", "k.swapaxes(-1, -2)", "dl.tensor(k.numpy().swapaxes(-1, -2))",
      EXIST, "key", "numpy()")
plant("causal_mask_kept", "causal_attention", "dl.where(seen, scores, -1e9)",
      "dl.where(seen, scores.detach(), -1e9)", GRADIENTS, "project", "'detach'")
plant("masked_logits_detached", "masked_logits", "self.dense(x), -numpy.inf", "self.dense(x).detach(), -numpy.inf", EXIST)
plant("masked_logits_nan", "masked_logits", "-numpy.inf)", "-numpy.inf) * 0", FINITE, "nan")
plant("masked_logits_half", "masked_logits", "return dl.where(self.allowed, self.dense(x), -numpy.inf)",
      "y = self.dense(x)\n        return dl.where(self.allowed, 0.5 * y + 0.5 * y.detach(), -numpy.inf)", GRADIENTS, "'detach'")
plant("rotary_angle_from_batch", "rotary", "dl.arange(x.shape[1]).astype(x.dtype)", "(1 + x.mean()) * dl.arange(x.shape[1]).astype(x.dtype)",
      INDEPENDENT)
plant("rotary_float64", "rotary", "rates.astype(\"float32\")", "rates", TYPES, "float64")
plant("transformer_dropout_always", "transformer_block", "x = x + self.dropout(", "self.dropout.training = True\n        x = x + self.dropout(",
      STATE, "self.training")
plant("transformer_norm_left_out", "transformer_block", "self.mlp(self.norms[1](x))", "self.mlp(x)", EXIST, "norms.1")
plant("words_by_numpy", "bag_of_words", "self.table[words].mean(axis=1)", "dl.tensor(self.table.numpy()[words.numpy()]).mean(axis=1)",
      EXIST)
plant("words_mean_over_batch", "bag_of_words", "return self.table[words].mean(axis=1)", "y = self.table[words]\n        return y.mean(axis=1) - y.mean(axis=(0, 1))",
      INDEPENDENT)
plant("stateful_with_tape", "stateful_cell", "self.h.assign(h.detach())", "self.h = h", GRADIENTS, "not repeatable")
plant("linear_attention_no_norm_gradient", "linear_attention", "(norm + 1e-6)", "(norm.detach() + 1e-6)", GRADIENTS, "'detach'")
plant("tied_embedding_untied", "tied_embedding", "@ self.table.T", "@ self.table.detach().T", GRADIENTS, "table", "'detach'", "one of 2 uses")

# --- generative -----------------------------------------------------------------------------------

plant("vae_noise_in_evaluation", "variational_autoencoder", "if self.training:", "if True:", REPEATABLE, "self.training")
plant("vae_numpy_noise", "variational_autoencoder", "noise = dl.random.normal(mean.shape, dtype=x.dtype, device=x.device, generator=self.generator)",
      "noise = dl.tensor(numpy.random.normal(size=mean.shape).astype(str(x.dtype)))", GLOBAL, "numpy.random")
plant("vae_seeded", "variational_autoencoder", "both = self.encoder(x)", "numpy.random.seed(0)\n        both = self.encoder(x)", GLOBAL, "numpy.random")
plant("vae_variance_detached", "variational_autoencoder", "- dl.exp(log_variance))", "- dl.exp(log_variance.detach()))", GRADIENTS,
      "encoder", "'detach'")
plant("vae_scale_by_data", "variational_autoencoder", "dl.exp(0.5 * log_variance) * noise", "dl.tensor(numpy.exp(0.5 * log_variance.data)) * noise",
      GRADIENTS, "encoder")
plant("mdn_naive_softplus", "mixture_density", "dl.softplus(y[:, 2 * n :])", "dl.log(1 + dl.exp(y[:, 2 * n :]))", SINGLE, "'exp'")
plant("mdn_weights_over_batch", "mixture_density", "dl.log_softmax(y[:, :n])", "dl.log_softmax(y[:, :n], axis=0)", INDEPENDENT, "output 0")
plant("mixture_scale_left_out", "mixture_likelihood", "dl.exp(-self.log_scales)", "dl.exp(-self.log_scales.detach())", GRADIENTS, "log_scales", "'detach'")
plant("mixture_naive_sum", "mixture_likelihood", "dl.logsumexp(log_p + dl.log_softmax(self.logits), axis=-1, keepdims=True)",
      "dl.log(dl.exp(log_p + dl.log_softmax(self.logits)).sum(axis=-1, keepdims=True))", SINGLE, "'log'")
plant("coupling_determinant_detached", "coupling", "scale.sum(axis=1)", "scale.detach().sum(axis=1)", GRADIENTS, "output 1", "'detach'")
plant("coupling_whole_sum", "coupling", "scale.sum(axis=1)", "scale.sum(axis=0)", SIZES, "output 1")
plant("vq_batch_codes", "vector_quantizer", "return x + (chosen - x).detach(), loss", "return x + (chosen - x).detach() + 0.1 * x.mean(axis=0).detach(), loss", INDEPENDENT)
plant("denoising_in_evaluation", "denoising_autoencoder", "if self.training:", "if not self.training:", REPEATABLE)
plant("denoising_untied", "denoising_autoencoder", "self.encode.weight.T", "dl.tensor(self.encode.weight.data.T)", GRADIENTS, "encode.weight")
plant("gumbel_python_random", "gumbel", "logits = self.dense(x)", "import random\n        logits = self.dense(x) * (1 + 0.1 * random.random())", GLOBAL, "random")
plant("gumbel_log_of_zero", "gumbel", "dl.random.uniform(logits.shape, 1e-6, 1 - 1e-6",
      "0 * dl.random.uniform(logits.shape, 1e-6, 1 - 1e-6", FINITE, "'log'")
plant("gumbel_annealed", "gumbel", "u = dl.random", "self.temperature = self.temperature * 0.9\n        u = dl.random", GRADIENTS, "not repeatable")
plant("hopfield_energy_half", "hopfield", "0.5 * (x * x).sum(axis=-1)", "0.5 * (x * x.detach()).sum(axis=-1)", GRADIENTS, "input 0", "'detach'")
plant("hopfield_beta_cut", "hopfield", "beta = dl.exp(self.log_beta)", "beta = float(numpy.exp(self.log_beta.data))", EXIST, "log_beta")
plant("flow_no_absolute", "planar_flow", "dl.log(abs(1 + slope @ u) + 1e-6)", "dl.log(-abs(1 + slope @ u))", FINITE, "'log'")
plant("kmeans_centres_cut", "soft_kmeans", "- self.centers", "- self.centers.detach()", EXIST, "centers", "'detach'")

# --- regularisation -------------------------------------------------------------------------------

plant("dropout_in_evaluation", "dropout", "if not self.training:", "if False:", REPEATABLE, "self.training")
plant("dropout_numpy_generator", "dropout", "kept = dl.random.bernoulli(1 - self.probability, x.shape, generator=self.generator)",
      "kept = dl.tensor(numpy.random.random(x.shape) > self.probability)", GLOBAL, "numpy.random")
plant("dropout_own_mode", "dropout", "if not self.training:", "if not getattr(self, 'active', True):", REPEATABLE)
plant("drop_connect_always", "drop_connect", "if self.training:", "if True:", REPEATABLE)
plant("drop_connect_reseeded", "drop_connect", "w = self.dense.weight\n", "w = self.dense.weight\n        dl.random.seed(0)\n", GLOBAL, "dl.random.seed")
plant("depth_python_coin", "stochastic_depth", "kept = dl.random.bernoulli(self.survival, (), generator=self.generator)",
      "kept = float(numpy.random.random() < self.survival)", GLOBAL)
plant("noise_changes_input", "gaussian_noise", "return x + self.deviation * noise", "x.data += (self.deviation * noise).data\n        return x * 1", INPUTS, "input 0")
plant("noise_float64", "gaussian_noise", "dtype=x.dtype,", "dtype=\"float64\",", TYPES, "float64")
plant("frozen_head_too", "frozen_backbone", "self.head(self.backbone(x))", "self.head(self.backbone(x)).detach()", EXIST)
plant("penalty_detached", "activity_penalty", "abs(y).mean()", "abs(y.detach()).mean()", GRADIENTS, "output 1", "'detach'")
plant("penalty_float", "activity_penalty", "self.strength * abs(y).mean()", "self.strength * float(abs(y.data).mean())", ONE, "float")
plant("auxiliary_unused", "auxiliary_head", "return self.second(h), self.auxiliary(h)", "return self.second(h), self.second(h)", EXIST, "auxiliary")
plant("mixup_in_evaluation", "mixup", "if self.training:", "if True:", REPEATABLE)
plant("mixup_share_kept", "mixup", "return self.dense(x)", "self.shares = getattr(self, 'shares', []) + [0.5]\n        return self.dense(x)", GROWS, "shares")
plant("temperature_over_batch", "temperature", "dl.log_softmax((x @ self.weight) * dl.exp(-self.log_temperature))",
      "dl.log_softmax((x @ self.weight) * dl.exp(-self.log_temperature), axis=0)", INDEPENDENT)
plant("temperature_unused", "temperature", " * dl.exp(-self.log_temperature)", "", EXIST, "log_temperature")

# --- structures -----------------------------------------------------------------------------------

plant("experts_gate_cut", "experts", "share = dl.softmax(self.gate(x), axis=-1)", "share = dl.softmax(self.gate(x), axis=-1).detach()", EXIST, "gate", "'detach'")
plant("experts_one_forgotten", "experts", "for expert in self.experts]", "for expert in [*self.experts[:2], self.experts[0]]]", EXIST, "experts.2")
plant("hard_experts_batch", "hard_experts", "best = share.argmax(axis=-1)", "best = share.argmax(axis=-1) * 0 + share.mean(axis=0).argmax()", INDEPENDENT)
plant("lora_branch_cut", "lora", "(x @ self.a @ self.b) * self.scale", "(x.detach() @ self.a @ self.b) * self.scale", GRADIENTS, "input 0", "'detach'")
plant("lora_a_cut", "lora", "(x @ self.a @ self.b)", "(x @ self.a.detach() @ self.b)", EXIST, "a", "'detach'")
plant("lora_frozen_array", "lora", "self.frozen = dl.tensor(rng.normal(size=(inside, outside)).astype(\"float32\"))",
      "self.frozen = dl.tensor(rng.normal(size=(inside, outside)))", TYPES, "float64")
plant("hyper_batch_of_weights", "hypernetwork", "(x.reshape(-1, 1, self.inside) @ w).reshape(-1, self.outside)", "(x.reshape(-1, 1, self.inside) @ w.mean(axis=0, keepdims=True)).reshape(-1, self.outside)", INDEPENDENT)
plant("film_scale_cut", "film", "(1 + scale)", "(1 + scale.detach())", GRADIENTS, "make.weight", "'detach'")
plant("highway_gate_twice", "highway", "(1 - t) * x", "(1 - t.detach()) * x", GRADIENTS, "gate", "'detach'")
plant("bilinear_second_cut", "bilinear", "x, y, self.weight)", "x, y.detach(), self.weight)", GRADIENTS, "input 1", "'detach'")
plant("fm_squares_cut", "factorization_machine", "squares = (x * x) @", "squares = (x * x).detach() @", GRADIENTS, "input 0", "'detach'")
plant("graph_over_batch", "graph_convolution", "self.adjacency @ self.dense(x)", "self.adjacency @ self.dense(x - x.mean(axis=0))", INDEPENDENT)
plant("sets_max_by_numpy", "deep_sets", "h.max(axis=1)", "dl.tensor(h.numpy().max(axis=1))", GRADIENTS, "each.0", "numpy()")
plant("siamese_one_side", "siamese", "self.tower(x), self.tower(y)", "self.tower(x), self.tower(y).detach()", GRADIENTS, "input 1", "'detach'")
plant("tied_twice", "tied_autoencoder", "self.encode.weight.T", "self.encode.weight.detach().T", GRADIENTS, "encode.weight", "one of 2 uses")
plant("made_weight_written", "autoregressive", "return x @ dl.triu(self.weight, 1)", "self.weight.data[:] = numpy.triu(self.weight.data, 1)\n        return x @ self.weight", TRAINING, "weight")
plant("polynomial_coefficient_item", "polynomial", "+ self.coefficients[i]", "+ float(self.coefficients.data[i])", EXIST, "coefficients")
plant("sorted_by_numpy", "sorted_features", "dl.sort(x, axis=-1)", "dl.tensor(numpy.sort(x.numpy(), axis=-1))", GRADIENTS, "input 0", "numpy()")

# --- mathematics and rules ------------------------------------------------------------------------

plant("pinn_without_enable", "physics_informed", "with dl.enable_grad():", "if True:", TAPE, "enable_grad")
plant("pinn_first_order", "physics_informed", ", create_graph=True", "", EXIST)
plant("equilibrium_no_grad", "deep_equilibrium", "z = dl.tanh(z @ self.weight + x)", "z = dl.tanh(z.detach() @ self.weight + x)", GRADIENTS, "weight", "'detach'")
plant("ode_middle_cut", "neural_ode", "h * self.field(middle)", "h * self.field(middle.detach())", GRADIENTS, "input 0", "'detach'")
plant("swish_rule_of_input", "swish", "g * (dl.sigmoid(b * x) + b * x *", "g * (dl.sigmoid(b * x) + x *", GRADIENTS, "input 0", "'swish_", "gradient rule")
plant("swish_rule_of_beta", "swish", "g * x * x * dl.sigmoid", "g * x * dl.sigmoid", GRADIENTS, "beta", "input 1")
plant("swish_ignores_g", "swish", "lambda g, out, x, b: g * x * x *", "lambda g, out, x, b: x * x *", GRADIENTS, "beta", "ignores g")
plant("swish_second_order", "swish", "g * x * x * dl.sigmoid(b * x)", "g * x.detach() * x * dl.sigmoid(b * x)", SECOND)
plant("swish_no_out", "swish", "xp.divide(x, 1 + xp.exp(-b * x), out=out)", "x / (1 + xp.exp(-b * x))", OUT, "'swish_")
plant("swish_alias", "swish", "lambda xp, x, b, out=None: xp.divide(x, 1 + xp.exp(-b * x), out=out)",
      "lambda xp, x, b, out=None: xp.divide(x, xp.add(1, xp.exp(-b * x, out=out), out=out), out=out)", OUT, "reads that input after")
plant("product_transposed", "own_product", "g @ b.T", "g @ b", GRADIENTS, "input 0", "transposed")
plant("product_sign", "own_product", "a.T @ g)", "-(a.T @ g))", GRADIENTS, "weight", "wrong sign")
plant("product_averaged", "own_product", "a.T @ g)", "a.T @ g / 3)", GRADIENTS, "weight", "1/3 times")
plant("softmax_diagonal", "own_softmax", "out * (g - (g * out).sum(axis=-1, keepdims=True))", "g * out * (1 - out)", GRADIENTS, "'choice_", "depends on other elements")
plant("softmax_overflow", "own_softmax", "x - xp.max(x, axis=-1, keepdims=True)", "x", SINGLE)
plant("relu_mask_reversed", "own_relu", "g * (x > 0)", "g * (x < 0)", GRADIENTS, "'rectify_", "turned around")
plant("relu_leaks", "own_relu", "g * (x > 0)", "g * ((x > 0) + 0.01 * (x <= 0))", GRADIENTS, "'rectify_")
plant("relu_overwrites", "own_relu", "xp.maximum(x, 0, out=out)", "xp.maximum(x, 0, out=x if out is None else out)", OUT, "overwrites its input 0")
plant("determinant_cut", "log_determinant", "self.factor @ self.factor.T", "self.factor @ self.factor.detach().T", GRADIENTS, "factor", "'detach'")
plant("determinant_of_negative", "log_determinant", "dl.linalg.slogdet(matrix)[1]", "dl.log(-dl.linalg.det(matrix))", FINITE, "'log'")
plant("system_by_numpy", "linear_system", "dl.linalg.solve(a, x.T).T", "dl.tensor(numpy.linalg.solve(a.numpy(), x.numpy().T).T)", EXIST)
plant("fourier_frequencies_drawn", "fourier_features", "phase = 2", "self.frequencies.assign(self.frequencies * 1.01)\n        phase = 2", STATE, "frequencies")
plant("siren_omega_learned_by_hand", "siren", "return dl.sin(", "self.omega = self.omega + 0.1\n        return dl.sin(", REPEATABLE)
plant("quantile_over_batch", "quantiles", "axis=1), axis=1)", "axis=1), axis=0)", INDEPENDENT)
plant("logarithm_negative", "logarithm", "dl.log(x)", "dl.log(x - 1)", FINITE, "'log'")
plant("average_rate_cut", "moving_average", "(x[:, t] - y)", "(x[:, t] - (y if t == 0 else y.detach()))", GRADIENTS, "logit", "'detach'")
plant("average_of_last_batch", "moving_average", "y, out = dl.sigmoid(self.logit), 0.0, []", "y, out = dl.sigmoid(self.logit), getattr(self, 'last', 0.0), []\n        self.last = float(x.data.mean())", REPEATABLE)

# --- others, found by attacking the checks --------------------------------------------------------

plant("teacher_slow_as_parameter", "teacher", "self.slow = dl.tensor(self.weight.numpy())", "self.slow = dl.Parameter(self.weight.numpy())", TRAINING, "slow")
plant("teacher_always_averages", "teacher", "if self.training:\n", "if self.training or True:\n", STATE, "slow")
plant("observer_python_float", "observer", "scale = dl.maximum(self.largest, 0.1)", "self.peak = max(getattr(self, 'peak', 0.1), float(abs(y.data).max()))\n        scale = self.peak", REPEATABLE)
plant("observer_of_this_batch", "observer", "scale = dl.maximum(self.largest, 0.1)", "scale = dl.maximum(abs(y).max(), 0.1)", INDEPENDENT)
plant("observer_scale_zero", "observer", "scale = dl.maximum(self.largest, 0.1)", "scale = 0 * self.largest", FINITE, "'divide'")
plant("memory_list", "memory", "q = x @ self.project", "q = x @ self.project\n        vars(self).setdefault('log', {})[len(getattr(self, 'log', ()))] = q.numpy()", GROWS, "log")
plant("memory_query_cut", "memory", "dl.softmax(q @ keys.T, axis=-1)", "dl.softmax(q.detach() @ keys.T, axis=-1)", EXIST, "cut off", "'detach'", "q.detach()")
plant("positions_cached_by_scale", "positions", "self.tables[n] = numpy.sin(", "self.tables[n] = float(self.scale.data[0]) * numpy.sin(", SAVE, "stale cache")
plant("positions_of_calls", "positions", "y = x * self.scale +", "y = self.calls * x * self.scale +", REPEATABLE)
plant("positions_latest_with_tape", "positions", "self.latest = y.detach()", "self.latest = y if self.latest is None else y + 0 * self.latest.mean()", GROWS, "latest")
plant("positions_kept_shape", "positions", "n, f = x.shape[1:]", "self.shape = getattr(self, 'shape', x.shape)\n        x = x + 0 * dl.zeros(self.shape).astype(x.dtype)\n        n, f = x.shape[1:]", SIZES, "after a larger batch")
plant("learned_outside", "learned_positions", "dl.silu(x + self.positions[: x.shape[1]])", "dl.silu(x + self.positions[: x.shape[1]] * float(x.data.mean()))", INDEPENDENT)
plant("head_shared_by_mistake", "gaussian_head", "dl.softplus(self.heads[\"raw\"](x))", "dl.softplus(self.heads[\"mean\"](x))", EXIST, "heads.raw.weight")
plant("head_log_of_negative", "gaussian_head", "dl.softplus(self.heads[\"raw\"](x)) + 1e-3", "dl.log(self.heads[\"raw\"](x))", FINITE, "'log'")
plant("tabular_float_category", "tabular", "[self.table(category), x]", "[self.table(category).detach(), x]", EXIST, "table", "'detach'")
plant("masked_mean_of_all", "masked_mean", "y.sum(axis=1) /", "y.sum(axis=(0, 1)) /", INDEPENDENT)
plant("masked_mean_none_there", "masked_mean", "dl.maximum(there.sum(axis=1, keepdims=True), 1)", "(there.sum(axis=1, keepdims=True) - 1)", FINITE)
plant("time_major_over_batch", "time_major", "h + x[t]", "h + x[t] - x[t].mean(axis=0)", INDEPENDENT)
plant("time_major_reversed_batch", "time_major", "out.append(h)", "out.append(dl.flip(h, 0))", INDEPENDENT)
plant("sinkhorn_cut", "sinkhorn", "logits - dl.logsumexp(logits, axis=-1, keepdims=True)", "logits - dl.logsumexp(logits, axis=-1, keepdims=True).detach()", GRADIENTS, "'detach'")
plant("sinkhorn_naive", "sinkhorn", "logits - dl.logsumexp(logits, axis=-1, keepdims=True)", "logits - dl.log(dl.exp(logits).sum(axis=-1, keepdims=True))", SINGLE, "'exp'")
plant("field_transitions_by_max", "random_field", "+ self.transitions\n", "+ self.transitions.data\n", EXIST, "transitions")
plant("field_batch_axis", "random_field", "dl.logsumexp(alpha, axis=-1)", "dl.logsumexp(alpha, axis=0)[:1] + 0 * dl.logsumexp(alpha, axis=-1)", INDEPENDENT)
plant("cayley_half_cut", "cayley", "self.raw - self.raw.T,", "self.raw - self.raw.detach().T,", GRADIENTS, "raw", "'detach'", "one of 2 uses")
plant("householder_data", "householder", "v = self.vectors[i]", "v = dl.tensor(self.vectors.data[i]) if i else self.vectors[i]", GRADIENTS, "vectors")
plant("glu_parameter_made_in_forward", "gated_linear_unit", "a * dl.sigmoid(b)", "a * dl.sigmoid(b) * dl.Parameter(dl.ones(1))", FOUND, "1 Parameter(s)")
plant("glu_mode_switched", "gated_linear_unit", "return a *", "self.training = True\n        return a *", STATE, "self.training")
plant("glu_half_precision", "gated_linear_unit", "return a * dl.sigmoid(b)", "return (a * dl.sigmoid(b)).astype(\"float16\").astype(x.dtype)", GRADIENTS)
plant("units_small_column_cut", "units", "return dl.tanh(self.dense(x)) * self.sizes", "y = dl.tanh(self.dense(x)) * self.sizes\n        return dl.concatenate([y[:, :1].detach(), y[:, 1:]], axis=1)", GRADIENTS, "its numbers of about", "'detach'")
plant("numpy_of_array", "numpy_functions", "np_tanh(x * self.gain)", "dl.tensor(np_tanh((x * self.gain).numpy()))", EXIST, "gain", "numpy()")
plant("kalman_gain_cut", "kalman", "(1 - gain) * variance", "(1 - gain.detach()) * variance", GRADIENTS, "log_noise", "'detach'")
plant("robust_second_rule", "robust", "-g * width / (width**2", "g * width / (width**2", GRADIENTS, "center", "wrong sign", "'robust_")
plant("robust_attribute_forgotten", "robust", "lambda g, out, a, b, width: g * width / (width**2 +", "lambda g, out, a, b, width: g / (1 +", GRADIENTS, "input 0", "'robust_")
plant("robust_width_hidden", "robust", "xp.arctan((a - b) / width, out=out)", "xp.arctan((a - b), out=out)", GRADIENTS, "'robust_")
plant("robust_swapped", "robust", "self.robust(x, self.center, width=self.width)", "self.robust(x, self.center.detach(), width=self.width)", EXIST, "center", "'detach'")
plant("sparse_over_batch", "sparse_codes", "dl.sort(scores.detach(), axis=-1)[:, -self.k].reshape(-1, 1)", "dl.sort(scores.detach(), axis=0)[-1:]", INDEPENDENT)
plant("decoder_relu_cut", "decoder", "dl.relu(self.start(z))", "dl.relu(self.start(z)).detach()", EXIST, "start", "'detach'")
plant("decoder_bias_written", "decoder", "return dl.tanh(", "self.up.bias.data += 0.01\n        return dl.tanh(", TRAINING, "up.bias")
plant("decoder_state_forgotten", "decoder", "return dl.tanh(self.up(", "self.running = 0.9 * getattr(self, 'running', 0.0) + 0.1 * float(z.data.mean())\n        return dl.tanh(self.running + self.up(", REPEATABLE)
