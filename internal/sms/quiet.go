package sms

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a bare container has no zones
)

// QuietHours are the times at which no marketing text is sent. The zero value is never
// quiet. Law and carriers disagree on them in France, so that the operator decides.
type QuietHours struct {
	from, until time.Duration // of the day; from > until spans midnight
	zone        *time.Location
	sundays     bool
	holidays    bool
}

// ParseQuietHours reads "22:00-08:00 Europe/Paris", with "sundays" and "holidays" (the
// French ones) behind it if these are quiet all day: "22:00-08:00 Europe/Paris sundays
// holidays". Commas in place of spaces do as well. "" is never quiet.
func ParseQuietHours(s string) (QuietHours, error) {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })
	var q QuietHours
	if len(words) == 0 {
		return q, nil
	}
	from, until, _ := strings.Cut(words[0], "-")
	var err error
	if q.from, err = timeOfDay(from); err != nil {
		return QuietHours{}, err
	}
	if q.until, err = timeOfDay(until); err != nil {
		return QuietHours{}, err
	}
	if q.from == q.until {
		return QuietHours{}, fmt.Errorf("quiet hours %q begin when they end", words[0])
	}
	if len(words) == 1 || words[1] == "sundays" || words[1] == "holidays" {
		return QuietHours{}, fmt.Errorf("quiet hours name no time zone such as Europe/Paris")
	}
	if q.zone, err = time.LoadLocation(words[1]); err != nil {
		return QuietHours{}, fmt.Errorf("quiet hours: %q is no time zone", words[1])
	}
	for _, day := range words[2:] {
		switch day {
		case "sundays":
			q.sundays = true
		case "holidays":
			q.holidays = true
		default:
			return QuietHours{}, fmt.Errorf("quiet hours: %q is neither sundays nor holidays", day)
		}
	}
	return q, nil
}

func timeOfDay(s string) (time.Duration, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("quiet hours: %q is no time of day such as 22:00", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// Until is when texts may be sent again, from t on: t itself where it is not quiet.
func (q QuietHours) Until(t time.Time) time.Time {
	if q.zone == nil {
		return t
	}
	// A quiet night, a Sunday and a holiday may follow each other; each step ends one.
	for range 16 {
		end := q.end(t.In(q.zone))
		if end.IsZero() {
			break
		}
		t = end
	}
	return t
}

// Between is how much of a span of time is quiet.
func (q QuietHours) Between(from, until time.Time) time.Duration {
	if q.zone == nil {
		return 0
	}
	total := time.Duration(0)
	for t := from; t.Before(until); {
		end := q.Until(t)
		if end.After(t) {
			if end.After(until) {
				end = until
			}
			total += end.Sub(t)
			t = end
			continue
		}
		if t = q.next(t); t.IsZero() {
			break
		}
	}
	return total
}

// next is when the next quiet begins after t, which is not quiet; zero: not within a year.
func (q QuietHours) next(t time.Time) time.Time {
	y, m, d := t.In(q.zone).Date()
	for day := range 366 {
		midnight := time.Date(y, m, d+day, 0, 0, 0, 0, q.zone)
		evening := time.Date(y, m, d+day, int(q.from/time.Hour), int(q.from%time.Hour/time.Minute), 0, 0, q.zone)
		for _, begin := range []time.Time{midnight, evening} {
			if begin.After(t) && !q.end(begin).IsZero() {
				return begin
			}
		}
	}
	return time.Time{}
}

// end is when the quiet that t lies in ends, zero if it lies in none.
func (q QuietHours) end(t time.Time) time.Time {
	y, m, d := t.Date()
	at := func(days int, of time.Duration) time.Time {
		return time.Date(y, m, d+days, int(of/time.Hour), int(of%time.Hour/time.Minute), 0, 0, q.zone)
	}
	if q.sundays && t.Weekday() == time.Sunday || q.holidays && holiday(y, m, d) {
		return at(1, 0)
	}
	from, until := at(0, q.from), at(0, q.until)
	switch {
	case q.from < q.until && !t.Before(from) && t.Before(until):
		return until
	case q.from > q.until && t.Before(until):
		return until
	case q.from > q.until && !t.Before(from):
		return at(1, q.until)
	}
	return time.Time{}
}

// holiday says whether a day is one of the eleven of France.
// https://www.service-public.fr/particuliers/vosdroits/F2405
func holiday(y int, m time.Month, d int) bool {
	switch fmt.Sprintf("%d-%d", m, d) {
	case "1-1", "5-1", "5-8", "7-14", "8-15", "11-1", "11-11", "12-25":
		return true
	}
	day := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	for _, after := range []int{1, 39, 50} { // Easter Monday, Ascension, Whit Monday
		if easter(y).AddDate(0, 0, after).Equal(day) {
			return true
		}
	}
	return false
}

// easter is Easter Sunday of the Gregorian calendar, by Gauss's rule as corrected by
// Lichtenberg.
func easter(y int) time.Time {
	k := y / 100
	m := 15 + (3*k+3)/4 - (8*k+13)/25
	a := y % 19
	d := (19*a + m) % 30
	r := (d + a/11) / 29
	og := 21 + d - r
	sz := 7 - (y+y/4+2-(3*k+3)/4)%7
	oe := 7 - (og-sz)%7
	return time.Date(y, time.March, og+oe, 0, 0, 0, 0, time.UTC)
}
