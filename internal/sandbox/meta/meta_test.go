package meta_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/internal/sandbox/meta"
)

const (
	token  = "EAAtoken"
	secret = "app-secret"
)

func start(t *testing.T, opt meta.Options) (*meta.Server, string) {
	t.Helper()
	opt.Token = token
	s, err := meta.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return s, ts.URL
}

func lead(id string) meta.Lead {
	return meta.Lead{ID: id, PageID: "111", FormID: "222", AdID: "333",
		CreatedTime: time.Date(2026, 11, 23, 9, 30, 0, 0, time.FixedZone("", 3600)),
		Fields: []meta.Field{{Name: "full_name", Values: []string{"Zoé Ÿ"}}, {Name: "phone_number"},
			{Name: "quels_services_?", Values: []string{"a", "b"}}},
		Disclaimers: []meta.Disclaimer{{CheckboxKey: "sms", IsChecked: true}, {CheckboxKey: "mail"}},
		Platform:    "ig",
	}
}

// get reads with the token in the header, and gives the answer as compact JSON.
func get(t *testing.T, u, bearer string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body)), resp.Header
}

func wantError(t *testing.T, name string, status int, body string, wantStatus, code, subcode int) {
	t.Helper()
	var doc struct {
		Error struct {
			Message, Type string
			Code          int
			Subcode       int    `json:"error_subcode"`
			Trace         string `json:"fbtrace_id"`
		}
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Errorf("%s: %v in %s", name, err, body)
		return
	}
	e := doc.Error
	if status != wantStatus || e.Code != code || e.Subcode != subcode || e.Message == "" || e.Type == "" || e.Trace == "" {
		t.Errorf("%s: HTTP %d, %+v; want HTTP %d, code %d/%d", name, status, e, wantStatus, code, subcode)
	}
}

func TestReadOneLead(t *testing.T) {
	t.Parallel()
	s, base := start(t, meta.Options{})
	s.AddLead(lead("1234567890123456789"))
	organic := meta.Lead{ID: "2", FormID: "222", IsOrganic: true}
	s.AddLead(organic)
	const data = `"field_data":[{"name":"full_name","values":["Zoé Ÿ"]},{"name":"phone_number","values":[]},{"name":"quels_services_?","values":["a","b"]}]`
	cases := map[string]struct{ path, want string }{
		"without fields": {"/v26.0/1234567890123456789",
			`{"created_time":"2026-11-23T08:30:00+0000",` + data + `,"id":"1234567890123456789"}`},
		"every field": {"/v26.0/1234567890123456789?fields=id,created_time,ad_id,form_id,field_data,custom_disclaimer_responses,is_organic,platform",
			`{"ad_id":"333","created_time":"2026-11-23T08:30:00+0000","custom_disclaimer_responses":[{"checkbox_key":"sms","is_checked":"1"},{"checkbox_key":"mail","is_checked":""}],` +
				data + `,"form_id":"222","id":"1234567890123456789","is_organic":false,"platform":"ig"}`},
		"organic lead has no ad": {"/v26.0/2?fields=ad_id,field_data,custom_disclaimer_responses,is_organic,platform",
			`{"field_data":[],"id":"2","is_organic":true}`},
	}
	for name, c := range cases {
		status, body, _ := get(t, base+c.path, token)
		if status != 200 {
			t.Errorf("%s: HTTP %d", name, status)
		}
		if d := cmp.Diff(c.want, body); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if status, _, _ := get(t, base+"/v26.0/2?access_token="+token, ""); status != 200 {
		t.Errorf("token in the query: HTTP %d", status)
	}
}

func TestReadSeveralLeads(t *testing.T) {
	t.Parallel()
	s, base := start(t, meta.Options{})
	s.AddLead(lead("1"))
	s.AddLead(lead("2"))
	for _, path := range []string{"/v26.0/?ids=1,2&fields=form_id", "/v26.0?ids=1,2&fields=form_id"} {
		status, body, _ := get(t, base+path, token)
		if want := `{"1":{"form_id":"222","id":"1"},"2":{"form_id":"222","id":"2"}}`; status != 200 || body != want {
			t.Errorf("%s: HTTP %d, %s; want %s", path, status, body, want)
		}
	}
	status, body, _ := get(t, base+"/v26.0/?ids=1,3", token)
	wantError(t, "one unknown id", status, body, 400, 100, 33)
	ids := strings.Repeat("1,", 49) + "2"
	if status, _, _ = get(t, base+"/v26.0/?ids="+ids, token); status != 200 {
		t.Errorf("50 ids: HTTP %d", status)
	}
	status, body, _ = get(t, base+"/v26.0/?ids=1,"+ids, token)
	wantError(t, "51 ids", status, body, 400, 100, 0)
	if calls := s.Calls(); len(calls) != 5 || len(calls[0].IDs) != 2 || calls[2].Code != 100 {
		t.Errorf("calls %+v", calls)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s, base := start(t, meta.Options{AppSecret: secret})
	s.AddLead(lead("1"))
	proof := "appsecret_proof=" + meta.Proof(token, secret)
	if status, body, _ := get(t, base+"/v26.0/1?"+proof, token); status != 200 {
		t.Fatalf("right proof: HTTP %d %s", status, body)
	}
	cases := map[string]struct {
		path, token           string
		status, code, subcode int
	}{
		"no token":      {"/v26.0/1?" + proof, "", 400, 104, 0},
		"wrong token":   {"/v26.0/1?" + proof, "other", 400, 190, 0},
		"no proof":      {"/v26.0/1", token, 400, 100, 0},
		"wrong proof":   {"/v26.0/1?appsecret_proof=" + meta.Proof(token, "other"), token, 400, 100, 0},
		"unknown id":    {"/v26.0/444444444444?" + proof, token, 400, 100, 33},
		"unknown field": {"/v26.0/1?fields=id,phone&" + proof, token, 400, 100, 0},
		"no node":       {"/v26.0/?" + proof, token, 400, 2500, 0},
		"unknown path":  {"/1", token, 404, 2500, 0},
		"not a lead id": {"/v26.0/nobody?" + proof, token, 404, 2500, 0},
	}
	for name, c := range cases {
		status, body, _ := get(t, base+c.path, c.token)
		wantError(t, name, status, body, c.status, c.code, c.subcode)
	}
	resp, err := http.PostForm(base+"/v26.0/1", url.Values{"access_token": {token}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("POST: HTTP %d", resp.StatusCode)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s, base := start(t, meta.Options{RegainMinutes: 7})
	s.AddLead(lead("1"))
	for f, want := range map[meta.Fault][2]int{meta.TokenExpired: {190, 463}, meta.AppLimit: {4, 0},
		meta.UserLimit: {17, 2446079}, meta.PageLimit: {80005, 2446079}, meta.Temporary: {2, 0}} {
		s.SetFault(f)
		status, body, header := get(t, base+"/v26.0/1", token)
		wantError(t, string(f), status, body, 400, want[0], want[1])
		var usage map[string][]struct {
			Regain int `json:"estimated_time_to_regain_access"`
		}
		if err := json.Unmarshal([]byte(header.Get("X-Business-Use-Case-Usage")), &usage); err != nil {
			t.Errorf("%s: usage header: %v", f, err)
		}
		for _, u := range usage {
			if wait := u[0].Regain; (f == meta.PageLimit) != (wait == 7) {
				t.Errorf("%s: usage header says to wait %d min", f, wait)
			}
		}
	}
	s.SetFault(meta.HTML500)
	if status, body, _ := get(t, base+"/v26.0/1", token); status != 500 || !strings.HasPrefix(body, "<!DOCTYPE html>") {
		t.Errorf("HTTP %d, %s", status, body)
	}
	s.SetFault(meta.HangUp)
	if resp, err := http.Get(base + "/v26.0/1?access_token=" + token); err == nil {
		resp.Body.Close()
		t.Errorf("HTTP %d from a connection that should have closed", resp.StatusCode)
	}
	s.SetFault("")
	if status, _, _ := get(t, base+"/v26.0/1", token); status != 200 {
		t.Errorf("after the faults: HTTP %d", status)
	}
}

func TestFaultByCallAndLatency(t *testing.T) {
	t.Parallel()
	s, base := start(t, meta.Options{MinLatency: 30 * time.Millisecond, MaxLatency: 30 * time.Millisecond,
		Fault: func(c meta.Call) meta.Fault {
			if c.IDs[0] == "2" {
				return meta.Temporary
			}
			return ""
		}})
	s.AddLead(lead("1"))
	s.AddLead(lead("2"))
	began := time.Now()
	if status, _, _ := get(t, base+"/v26.0/1", token); status != 200 || time.Since(began) < 30*time.Millisecond {
		t.Errorf("HTTP %d after %v", status, time.Since(began))
	}
	status, body, _ := get(t, base+"/v26.0/2", token)
	wantError(t, "fault by id", status, body, 400, 2, 0)
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	other := meta.Lead{ID: "1234567890123456789", PageID: "112", FormID: "222", CreatedTime: time.Unix(1700000000, 0)}
	want := `{"entry":[` +
		`{"id":"111","time":1795422600,"changes":[{"field":"leadgen","value":{"ad_id":"333","created_time":1795422600,"form_id":"222","leadgen_id":"1","page_id":"111"}},` +
		`{"field":"leadgen","value":{"ad_id":"333","created_time":1795422600,"form_id":"222","leadgen_id":"2","page_id":"111"}}]},` +
		`{"id":"112","time":1700000000,"changes":[{"field":"leadgen","value":{"created_time":1700000000,"form_id":"222","leadgen_id":"1234567890123456789","page_id":"112"}}]}` +
		`],"object":"page"}`
	leads := []meta.Lead{lead("1"), other, lead("2")}
	if d := cmp.Diff(want, string(meta.Webhook(meta.AsStrings, leads...))); d != "" {
		t.Errorf("ids as strings (-want +got):\n%s", d)
	}
	for _, id := range []string{"111", "112", "222", "333", "1", "2", other.ID} {
		want = strings.ReplaceAll(want, fmt.Sprintf("%q", id), id)
	}
	if d := cmp.Diff(want, string(meta.Webhook(meta.AsNumbers, leads...))); d != "" {
		t.Errorf("ids as numbers (-want +got):\n%s", d)
	}
}

func TestSendSigns(t *testing.T) {
	t.Parallel()
	body := meta.Webhook(meta.AsStrings, lead("1"))
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("X-Hub-Signature-256") != meta.Sign(got, secret) || string(got) != string(body) {
			w.WriteHeader(403)
		}
	}))
	t.Cleanup(ts.Close)
	for s, want := range map[string]int{secret: 200, "other": 403} {
		if status, err := meta.Send(t.Context(), ts.Client(), ts.URL, body, s); err != nil || status != want {
			t.Errorf("HTTP %d, %v; want %d", status, err, want)
		}
	}
	// HMAC-SHA256 of "{}" under "key", computed with openssl.
	if got := meta.Sign([]byte("{}"), "key"); got != "sha256=a777724d943eb48dc69bca8a4a6d57a04db3f9ec7e1de4e581e860265bdf3032" {
		t.Errorf("signature %s", got)
	}
}

func TestNewRefusesUnusableOptions(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]meta.Options{"no token": {}, "latency reversed": {Token: token, MinLatency: 2, MaxLatency: 1}} {
		if _, err := meta.New(opt); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
