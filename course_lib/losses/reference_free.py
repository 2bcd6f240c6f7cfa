"""Losses on preference pairs that need no reference model: what they hold on to is the length-normalised likelihood."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.losses.checks import check_at_least_zero, check_beta, check_lengths, check_shapes, exact, reduce


def simpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Simple preference optimisation: the reward is the mean log-probability of a token.

        L = - ln sigmoid( beta * (logp(y_w) / |y_w| - logp(y_l) / |y_l|) - gamma )

    gamma is the paper's: a margin in reward units, subtracted after beta (TRL's `simpo_gamma` is the same).
    The authors' training configs give `gamma_beta_ratio` = gamma / beta instead. Articles that drop beta
    describe beta = 1; the paper uses 2 to 10.

    Args:
        chosen_logps: (B,) summed log-probabilities of the chosen responses under the policy.
        rejected_logps: (B,) of the rejected responses.
        chosen_lengths: (B,) completion tokens of the chosen responses, EOS included, at least 1.
        rejected_lengths: (B,) of the rejected responses.
        beta: scale of the reward, above 0.
        gamma: margin by which the chosen reward should win, at least 0.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar in nats, or (B,) for "none".

    Raises:
        ValueError: for different shapes, an empty batch, a length below 1, beta or gamma out of range, or an
            unknown reduction.

    Source: Meng et al. 2024, SimPO, equation 6.
    """
    check_beta(beta)
    check_at_least_zero(gamma=gamma)
    chosen, rejected = _token_means(chosen_logps, rejected_logps, chosen_lengths, rejected_lengths)
    return reduce(-F.logsigmoid(beta * (chosen - rejected) - gamma), reduction)


def orpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    chosen_nll: Tensor,
    *,
    beta: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """Odds-ratio preference optimisation: SFT on the chosen response, plus a term on the ratio of odds.

        p = exp(logp(y) / |y|),  odds = p / (1 - p)
        L = nll(y_w) - beta * ln sigmoid( ln odds(y_w) - ln odds(y_l) )

    A mean log-probability closer to zero than fp32 resolves is taken to lie at that distance (1.2e-7), where
    the odds are still finite.

    Args:
        chosen_logps: (B,) summed log-probabilities of the chosen responses under the policy.
        rejected_logps: (B,) of the rejected responses.
        chosen_lengths: (B,) completion tokens of the chosen responses, EOS included, at least 1.
        rejected_lengths: (B,) of the rejected responses.
        chosen_nll: (B,) negative log-likelihood a token of each chosen response, or a scalar for the batch
            (the paper has each response's; TRL takes the mean over all tokens of the batch, prompts included).
        beta: weight of the odds-ratio term (lambda in the paper), above 0.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar in nats, or (B,) for "none".

    Raises:
        ValueError: for different shapes, an empty batch, a length below 1, beta out of range, or an unknown
            reduction.

    Source: Hong et al. 2024, ORPO, equations 6 and 7.
    """
    check_beta(beta)
    chosen, rejected = _token_means(chosen_logps, rejected_logps, chosen_lengths, rejected_lengths)
    if chosen_nll.dim() > 0:
        check_shapes(chosen_logps=chosen_logps, chosen_nll=chosen_nll)
    (chosen_nll,) = exact(chosen_nll)
    return reduce(chosen_nll - beta * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected)), reduction)


def _token_means(chosen_logps, rejected_logps, chosen_lengths, rejected_lengths) -> list[Tensor]:
    check_shapes(
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
    )
    check_lengths(chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    chosen_logps, rejected_logps = exact(chosen_logps, rejected_logps)
    return [chosen_logps / chosen_lengths, rejected_logps / rejected_lengths]


def _log_odds(logp: Tensor) -> Tensor:
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return logp - torch.log(-torch.expm1(logp))
