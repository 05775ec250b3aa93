//! `inspectord history accept` and `confirm`: a recorded verdict's picture becomes a sample, of a good part or of a
//! defect.
//!
//! In: ids of verdicts whose evidence is still kept. Out: files where people drop samples in. Not here: whether they
//! are taken (`retrain::intake`).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::cli::common::SettingsArgs;
use crate::retrain::{self, Home, Kind};
use crate::store::{Query, Reader};
use crate::verdict::Verdict;

/// Where samples go by `settings`, of which `store` overrides where the record lies, and with it the place beside it.
///
/// # Errors
/// The settings have faults.
pub(super) fn options(mut settings: SettingsArgs, store: Option<&Path>) -> anyhow::Result<retrain::Options> {
    if let Some(store) = store {
        let path = std::path::absolute(store).with_context(|| format!("cannot find {}", store.display()))?;
        settings.flags.push(format!("store.path={}", path.display()));
    }
    Ok(settings.load_retrain()?)
}

/// Drops the pictures of the verdicts `ids`, among those that `query` wants, in below `path`, and says where they lie.
///
/// # Errors
/// An id is none's or several verdicts', or the picture is no longer kept; the ids before it have been dropped in.
pub(super) fn drop_in(
    (reader, query): (&Reader, &Query),
    path: &Path,
    (ids, kind): (&[String], Kind),
    json: bool,
) -> anyhow::Result<()> {
    let verdicts = find(reader, query, ids)?;
    for verdict in &verdicts {
        let picture = picture(reader, verdict)?;
        let bytes = fs::read(&picture).with_context(|| format!("cannot read {}", picture.display()))?;
        let extension = picture.extension().unwrap_or_default().to_string_lossy();
        let home = Home::new(path, verdict.camera());
        let dropped = home.drop_in(kind, &format!("{}.{extension}", verdict.id), &bytes)?;
        let (id, camera, kind) = (verdict.id, verdict.camera(), kind.name());
        let done = if json {
            json!({"id": id, "camera": camera, "kind": kind, "path": dropped}).to_string()
        } else {
            format!("{id} of camera {camera} is a {kind} sample: {}", dropped.display())
        };
        writeln!(io::stdout(), "{done}")?;
    }
    Ok(())
}

fn find(reader: &Reader, query: &Query, ids: &[String]) -> anyhow::Result<Vec<Verdict>> {
    let mut found: Vec<Option<Verdict>> = vec![None; ids.len()];
    reader.each(query, |verdict| -> anyhow::Result<()> {
        let id = verdict.id.to_string();
        for (wanted, found) in ids.iter().zip(&mut found) {
            if !wanted.is_empty()
                && id.starts_with(wanted.as_str())
                && found.replace(verdict.clone()).is_some()
            {
                bail!("{wanted} could be several verdicts: write more of the id");
            }
        }
        Ok(())
    })?;
    let missing = |id: &String| {
        format!(
            "no verdict of those that the options ask for has the id {id}: `inspectord history --json` shows ids"
        )
    };
    found.into_iter().zip(ids).map(|(verdict, id)| verdict.with_context(|| missing(id))).collect()
}

fn picture(reader: &Reader, verdict: &Verdict) -> anyhow::Result<PathBuf> {
    let id = verdict.id;
    let Some(folder) = reader.evidence(verdict) else {
        bail!(
            "the picture of verdict {id} is not kept: evidence is kept of what is not ok, until space runs out"
        );
    };
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let picture = paths.find(|path| path.file_stem().is_some_and(|stem| stem == "picture"));
    picture.with_context(|| format!("verdict {id} has no picture"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Evidence, Options, RecordRequest, Store};
    use crate::verdict::Decision;
    use crate::verdict::tests::judgement;

    #[test]
    fn samples_go_where_settings_flags_and_the_store_that_was_named_say() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("inspectord.toml");
        fs::write(&config, "[store]\npath = \"store\"\n").unwrap();
        let goes = |flags: &[&str], store: Option<&Path>| {
            let flags = flags.iter().map(ToString::to_string).collect();
            options(SettingsArgs { config: config.clone(), flags }, store).unwrap().path
        };
        assert_eq!(goes(&[], None), root.path().join("retrain"));
        assert_eq!(goes(&["store.path=/mnt/a/store"], None), Path::new("/mnt/a/retrain"));
        assert_eq!(goes(&[], Some(Path::new("/mnt/b/store"))), Path::new("/mnt/b/retrain"));
        assert_eq!(
            goes(&["retrain.path=/srv/samples"], Some(Path::new("/mnt/b/store"))),
            Path::new("/srv/samples")
        );
    }

    #[test]
    fn a_verdicts_picture_is_dropped_in_once_it_is_unmistakable() {
        let root = tempfile::tempdir().unwrap();
        let options =
            Options { path: root.path().join("store"), min_free_megabytes: 0, ..Options::default() };
        let (handle, thread) = Store::open(&options, "box").unwrap();
        for score in [0.1, 0.9] {
            let evidence =
                (score > 0.5).then(|| Evidence { picture: vec![7; 9], extension: "png", heatmap_png: None });
            let request = RecordRequest { judgement: judgement("top", score), evidence, ticket: None };
            handle.record(request).wait().unwrap();
        }
        thread.close(Duration::from_secs(30)).unwrap();
        let reader = Reader::open(&options.path).unwrap();
        let newest_first = reader.history(&Query::default()).unwrap();
        let (alarm, fine) = (newest_first[0].id.to_string(), newest_first[1].id.to_string());
        let any = Query::default();
        let drop_in = |query: &Query, id: &str, kind| {
            super::drop_in((&reader, query), root.path(), (&[id.to_owned()], kind), true)
        };
        drop_in(&any, &alarm, Kind::Normal).unwrap();
        let dropped = root.path().join(format!("top/samples/normal/{alarm}.png"));
        assert_eq!(fs::read(dropped).unwrap(), [7; 9]);
        for (id, why) in [(fine.as_str(), "not kept"), ("ffff", "no verdict"), (&alarm[..1], "several")] {
            let error = drop_in(&any, id, Kind::Anomalous).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        // What could be several is one where the options leave one.
        let alarms = Query { decision: Some(Decision::Anomalous), ..Query::default() };
        drop_in(&alarms, &alarm[..1], Kind::Anomalous).unwrap();
        assert!(root.path().join(format!("top/samples/anomalous/{alarm}.png")).exists());
        let elsewhere = Query { camera: Some("side".parse().unwrap()), ..Query::default() };
        assert!(drop_in(&elsewhere, &alarm, Kind::Normal).is_err());
    }
}
