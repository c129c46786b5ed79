//! The id somebody probably meant.

/// How alike two ids are at least (Jaro-Winkler, 0 to 1) for one to be meant by the other.
const ALIKE: f64 = 0.7;

/// The id that is most like `wrong`, if any is like it at all.
pub fn nearest<'a>(wrong: &str, ids: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let alike = |id: &str| strsim::jaro_winkler(&wrong, &id.to_lowercase());
    ids.into_iter()
        .map(|id| (alike(id), id))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slip_of_the_finger_finds_its_id_and_another_word_none() {
        let ids = ["in-kernel", "hypervisor", "root-partition", "user-process"];
        assert_eq!(nearest("in-kernal", ids), Some("in-kernel"));
        assert_eq!(nearest("HYPERVISER", ids), Some("hypervisor"));
        assert_eq!(nearest("userprocess", ids), Some("user-process"));
        assert_eq!(nearest("moon", ids), None);
        assert_eq!(nearest("", ids), None);
    }
}
