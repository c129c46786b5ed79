//! The account of a campaign, in words.

use crate::quantity::duration;
use cofferdam_experiment::campaign::{Campaign, MINIX_3};

/// What a campaign has to show for itself.
pub fn text(campaign: &Campaign) -> String {
    let left = campaign.left_behind.map_or_else(
        || "what is left behind unknown".to_owned(),
        |left| format!("{left} processes left behind"),
    );
    let mut text = format!(
        "Campaign: {} of {} injected faults acted, {} were asked for; {} infrastructure failures, {} \
         lost records, {} surplus, {left}",
        campaign.activated,
        campaign.injected,
        campaign.wanted,
        campaign.infrastructure_failures,
        campaign.lost,
        campaign.surplus,
    );
    if let Some(boots) = campaign.boots {
        text.push_str(&format!(
            "; {} trials shared {} boots, {} of which ended because a trial left something behind",
            boots.trials, boots.all, boots.spoilt
        ));
    }
    if let Some((rate, seconds)) = campaign.per_hour().zip(campaign.minix_3_s()) {
        let long = duration(seconds.saturating_mul(1_000_000_000));
        text.push_str(&format!(
            "; {rate} faults an hour, at which the {MINIX_3} of MINIX 3 (DSN 2009) would take {long}"
        ));
    }
    if campaign.activated < campaign.wanted {
        text.push_str(". Fewer acted than were asked for: ask for more");
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_experiment::campaign::Boots;

    #[test]
    fn account_says_what_is_missing_and_what_it_extrapolates() {
        let account = Campaign {
            wanted: 120,
            injected: 110,
            activated: 100,
            infrastructure_failures: 0,
            lost: 2,
            surplus: 0,
            left_behind: None,
            busy_us: 1_000_000,
            boots: Some(Boots {
                all: 20,
                trials: 110,
                spoilt: 6,
            }),
        };

        let text = text(&account);

        for part in [
            "100 of 110 injected faults acted, 120 were asked for",
            "2 lost records",
            "110 trials shared 20 boots, 6 of which ended",
            "what is left behind unknown",
            "360000 faults an hour",
            "Fewer acted",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
