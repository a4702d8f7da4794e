package sms_test

import (
	"strings"
	"testing"
	"time"

	"leadpipe/internal/sms"
)

func TestQuietHours(t *testing.T) {
	t.Parallel()
	const (
		night = "22:00-08:00 Europe/Paris"
		noon  = "12:30-14:00 Europe/Paris"
		all   = night + " sundays holidays"
	)
	for _, c := range []struct{ name, quiet, at, until string }{
		{"never quiet when unset", "", "2026-11-24T23:00:00+01:00", "2026-11-24T23:00:00+01:00"},
		{"loud by day", night, "2026-11-24T12:00:00+01:00", "2026-11-24T12:00:00+01:00"},
		{"quiet from its first minute", night, "2026-11-24T22:00:00+01:00", "2026-11-25T08:00:00+01:00"},
		{"loud until its first minute", night, "2026-11-24T21:59:59+01:00", "2026-11-24T21:59:59+01:00"},
		{"quiet after midnight", night, "2026-11-25T03:00:00+01:00", "2026-11-25T08:00:00+01:00"},
		{"loud from its end", night, "2026-11-25T08:00:00+01:00", "2026-11-25T08:00:00+01:00"},
		{"hours are those of the zone", night, "2026-07-01T20:30:00Z", "2026-07-02T06:00:00Z"},
		{"a window within one day", noon, "2026-11-24T13:00:00+01:00", "2026-11-24T14:00:00+01:00"},
		{"a window within one day, before", noon, "2026-11-24T12:29:00+01:00", "2026-11-24T12:29:00+01:00"},
		{"the night in which clocks go forward", night, "2026-03-28T23:00:00+01:00", "2026-03-29T08:00:00+02:00"},
		{"the night in which clocks go back", night, "2026-10-24T23:00:00+02:00", "2026-10-25T08:00:00+01:00"},
		{"sundays count only if asked for", night, "2026-11-22T12:00:00+01:00", "2026-11-22T12:00:00+01:00"},
		{"a saturday night runs into monday", all, "2026-11-21T23:00:00+01:00", "2026-11-23T08:00:00+01:00"},
		{"new year's day", all, "2027-01-01T12:00:00+01:00", "2027-01-02T08:00:00+01:00"},
		{"easter monday 2026", all, "2026-04-06T12:00:00+02:00", "2026-04-07T08:00:00+02:00"},
		{"ascension 2026", all, "2026-05-14T12:00:00+02:00", "2026-05-15T08:00:00+02:00"},
		{"whit monday 2027", all, "2027-05-17T12:00:00+02:00", "2027-05-18T08:00:00+02:00"},
		{"easter monday 2025", all, "2025-04-21T12:00:00+02:00", "2025-04-22T08:00:00+02:00"},
		{"bastille day", all, "2026-07-14T12:00:00+02:00", "2026-07-15T08:00:00+02:00"},
		{"christmas on a friday", all, "2026-12-24T23:00:00+01:00", "2026-12-26T08:00:00+01:00"},
		{"commas do as well", night + ",sundays, holidays", "2026-11-21T23:00:00+01:00", "2026-11-23T08:00:00+01:00"},
		{"a friday that is none", all, "2026-12-18T12:00:00+01:00", "2026-12-18T12:00:00+01:00"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			q, err := sms.ParseQuietHours(c.quiet)
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, c.at)
			if err != nil {
				t.Fatal(err)
			}
			if got := q.Until(at).Format(time.RFC3339); !q.Until(at).Equal(parse(t, c.until)) {
				t.Errorf("quiet until %s, not %s", got, c.until)
			}
		})
	}
}

func TestQuietHoursThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"22:00", "22:00-08:00", "22-8 Europe/Paris", "22:00-22:00 Europe/Paris", "25:00-08:00 Europe/Paris",
		"22:00-08:00 Europe/Lutetia", "22:00-08:00 Europe/Paris,mondays", "sundays",
	} {
		if _, err := sms.ParseQuietHours(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func parse(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestSegments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text, encoding string
		n                    int
	}{
		{"nothing is one", "", "gsm7", 1},
		{"french that fits", "Réglé à la Poste, où ? Éèùìò", "gsm7", 1},
		{"a circumflex does not", "être", "ucs2", 1},
		{"a c with cedilla does not", "reçu", "ucs2", 1},
		{"the default confirmation", "Vous êtes désabonné. Plus de SMS.", "ucs2", 1},
		{"160 fit", strings.Repeat("a", 160), "gsm7", 1},
		{"161 do not", strings.Repeat("a", 161), "gsm7", 2},
		{"306 are two parts", strings.Repeat("a", 306), "gsm7", 2},
		{"307 are three", strings.Repeat("a", 307), "gsm7", 3},
		{"a euro counts twice", strings.Repeat("€", 80), "gsm7", 1},
		{"81 euros do not fit", strings.Repeat("€", 81), "gsm7", 2},
		{"a euro is not torn apart", strings.Repeat("a", 152) + "€" + strings.Repeat("a", 152), "gsm7", 3},
		{"70 in ucs2", strings.Repeat("ê", 70), "ucs2", 1},
		{"71 in ucs2", strings.Repeat("ê", 71), "ucs2", 2},
		{"an emoji counts twice", strings.Repeat("😀", 35), "ucs2", 1},
		{"36 emoji do not fit", strings.Repeat("😀", 36), "ucs2", 2},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if n, encoding := sms.Segments(c.text); n != c.n || encoding != c.encoding {
				t.Errorf("%d in %s, not %d in %s", n, encoding, c.n, c.encoding)
			}
		})
	}
}
