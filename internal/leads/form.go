package leads

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/phone"
)

// A scalar is a JSON string, number or boolean, as text. Meta writes ids as numbers
// in its documentation and as strings in live webhooks; a float64 would change them.
type scalar string

// UnmarshalJSON takes null as the empty text. An object or a list is an error.
func (s *scalar) UnmarshalJSON(data []byte) error {
	switch data[0] {
	case '"':
		return json.Unmarshal(data, (*string)(s))
	case '{', '[':
		return errors.New("an object or a list where one value is expected")
	case 'n':
		*s = ""
	default:
		*s = scalar(data)
	}
	return nil
}

// id gives a Meta id: digits. None, "" and 0, is "".
func (s scalar) id() (string, error) {
	if s == "" || s == "0" {
		return "", nil
	}
	if len(s) > 40 || strings.Trim(string(s), "0123456789") != "" {
		return "", errors.New("not an id")
	}
	return string(s), nil
}

// time reads Graph's layout, RFC 3339, and seconds since 1970; zero if it is none of
// these.
func (s scalar) time() time.Time {
	for _, layout := range []string{"2006-01-02T15:04:05-0700", time.RFC3339} {
		if t, err := time.Parse(layout, string(s)); err == nil {
			return t.UTC()
		}
	}
	if sec, err := strconv.ParseInt(string(s), 10, 64); err == nil && sec > 0 && sec < 1<<35 {
		return time.Unix(sec, 0).UTC()
	}
	return time.Time{}
}

// An announcement is a webhook: there is a new lead.
type announcement struct {
	leadID, pageID, formID, adID string
	createdAt                    time.Time
}

// announced decodes the webhook's value object. Every error is permanent: it comes
// signed, and the same bytes won't become readable.
func announced(data []byte) (announcement, error) {
	var value struct {
		LeadgenID scalar `json:"leadgen_id"`
		PageID    scalar `json:"page_id"`
		FormID    scalar `json:"form_id"`
		AdID      scalar `json:"ad_id"`
		Created   scalar `json:"created_time"`
	}
	if err := json.Unmarshal(data, &value); err != nil {
		return announcement{}, outcome.Permanentf(outcome.Malformed, "the webhook is not readable: %w", err)
	}
	a := announcement{createdAt: value.Created.time()}
	for _, f := range []struct {
		name string
		from scalar
		to   *string
	}{
		{"leadgen_id", value.LeadgenID, &a.leadID}, {"page_id", value.PageID, &a.pageID},
		{"form_id", value.FormID, &a.formID}, {"ad_id", value.AdID, &a.adID},
	} {
		id, err := f.from.id()
		if err != nil {
			return announcement{}, outcome.Permanentf(outcome.Malformed, "the webhook's %s: %w", f.name, err)
		}
		*f.to = id
	}
	if a.leadID == "" {
		return announcement{}, outcome.Permanentf(outcome.Malformed, "the webhook has no leadgen_id")
	}
	return a, nil
}

// placeholder knows the ids of the "Test" button in Meta's app dashboard, which
// announces a lead that does not exist: 444444444444.
func (a announcement) placeholder() bool {
	return len(a.leadID) >= 9 && strings.Trim(a.leadID, "4") == ""
}

// lead is what the announcement says of its lead, until Graph says more.
func (a announcement) lead() contracts.Lead {
	return contracts.Lead{ID: a.leadID, CreatedAt: a.createdAt, PageID: a.pageID, FormID: a.formID, AdID: a.adID,
		PhoneIssue: string(phone.Missing), Pending: true}
}

// own are Meta's own names, which are the same in every language and come before what
// people have called their own questions.
var own = map[fieldKind][]string{
	nameField: {"full_name"}, firstField: {"first_name"}, lastField: {"last_name"},
	emailField: {"email", "work_email"}, phoneField: {"phone_number", "work_phone_number"},
}

// plain is a field's name without accents, case and punctuation: "Numéro de
// téléphone :" → "numero_de_telephone".
func plain(name string) string {
	words := strings.FieldsFunc(norm.NFKD.String(strings.ToLower(name)), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r)
	})
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, strings.Join(words, "_"))
}

// newLead makes a lead of what Graph knows and what the webhook said. Every answer is
// kept as it was given, under the name that its form gave it; only the facts beside
// them are understood.
func newLead(a announcement, f form, region string) (contracts.Lead, error) {
	lead := contracts.Lead{
		ID: a.leadID, CreatedAt: f.CreatedTime.time(), PageID: a.pageID, FormID: a.formID, AdID: a.adID,
		Answers: map[string][]string{},
	}
	if lead.CreatedAt.IsZero() {
		lead.CreatedAt = a.createdAt
	}
	lead.Platform = string(f.Platform)
	for from, to := range map[*scalar]*string{&f.FormID: &lead.FormID, &f.AdID: &lead.AdID, &f.CampaignID: &lead.CampaignID} {
		id, err := from.id()
		if err != nil {
			return lead, outcome.Permanentf(outcome.Malformed, "the lead's form and ad: %w", err)
		}
		if id != "" {
			*to = id
		}
	}
	facts := map[fieldKind][]string{} // what was answered to each, Meta's own names first
	front := map[fieldKind]int{}
	for _, field := range f.Fields {
		name := string(field.Name)
		if lead.Answers[name] == nil {
			lead.Answers[name] = []string{}
		}
		kind := kindOf(plain(name))
		for _, v := range field.Values {
			lead.Answers[name] = append(lead.Answers[name], string(v))
			value := strings.TrimSpace(string(v))
			switch {
			case value == "":
			case slices.Contains(own[kind], plain(name)):
				facts[kind] = slices.Insert(facts[kind], front[kind], value)
				front[kind]++
			default:
				facts[kind] = append(facts[kind], value)
			}
		}
	}
	fact := func(k fieldKind) string {
		if len(facts[k]) == 0 {
			return ""
		}
		return facts[k][0]
	}
	last := fact(lastField)
	lead.Name, lead.FirstName, lead.Email = fact(nameField), fact(firstField), fact(emailField)
	if i := slices.IndexFunc(facts[emailField], address.MatchString); i >= 0 {
		lead.Email = facts[emailField][i]
	}
	if lead.Name == "" {
		lead.Name = strings.TrimSpace(lead.FirstName + " " + last)
	}
	if words := strings.Fields(lead.Name); lead.FirstName == "" && last == "" && len(words) > 0 {
		lead.FirstName = asName(words[0]) // Meta fills in full_name in this order
	}
	readPhone(&lead, facts[phoneField], region)
	for _, d := range f.Disclaimers {
		if lead.Disclaimers == nil {
			lead.Disclaimers = map[string]bool{}
		}
		lead.Disclaimers[string(d.Key)] = d.Checked == "1" || d.Checked == "true"
	}
	return lead, nil
}

// digitRuns are what may be a number in a sentence: "mon numéro : 06.39.98.01.02 (le soir)".
var digitRuns = regexp.MustCompile(`\+?[0-9](?:[ .\-/]?[0-9]){8,14}`)

// readPhone takes the first of the answers that can be texted; else the first that is a
// number, else the first, with the reason why it can't be.
func readPhone(lead *contracts.Lead, answers []string, region string) {
	lead.PhoneIssue = string(phone.Missing)
	for _, answer := range answers {
		number, err := phone.Textable(answer, region)
		if err == nil {
			lead.Phone, lead.PhoneIssue = string(number), ""
			return
		}
		for _, part := range digitRuns.FindAllString(answer, 4) { // with words around it
			if number, err := phone.Textable(part, region); err == nil {
				lead.Phone, lead.PhoneIssue = string(number), ""
				return
			}
		}
		var issue phone.Issue
		if !errors.As(err, &issue) || lead.PhoneIssue == string(phone.NotMobile) || lead.PhoneIssue == string(issue) {
			continue
		}
		if issue == phone.NotMobile || lead.Phone == "" {
			lead.Phone, lead.PhoneIssue = answer, string(issue)
		}
	}
}

// maxRecord bounds a lead's record. The server takes messages of 8 MB, and a record
// that it refuses would hold up the commit of everybody else's.
const maxRecord = 4 << 20

// fits refuses a lead whose record the bucket would not take.
func fits(lead contracts.Lead) error {
	data, err := json.Marshal(lead)
	if err != nil {
		return fmt.Errorf("encoding a lead: %w", err)
	}
	if len(data) > maxRecord {
		return outcome.Permanentf(outcome.Malformed, "the lead's answers take %d bytes; %d are the most", len(data), maxRecord)
	}
	return nil
}
