// Google's own client for Node.js against the stand-in: what the Go client of the pipeline
// would not notice, because it knows no other server, a second client does.
import assert from "node:assert/strict";
import { sheets } from "@googleapis/sheets";
import { OAuth2Client } from "google-auth-library";

const [url, token] = process.argv.slice(2);
const auth = new OAuth2Client();
auth.setCredentials({ access_token: token });
const api = sheets({ version: "v4", auth, rootUrl: url + "/" });
const spreadsheetId = "book";

const refused = async (words, call) => {
  await assert.rejects(call, (err) => {
    assert.equal(Number(err.code ?? err.status), 400, err.message);
    assert.match(err.message, words);
    return true;
  });
};
const change = (...requests) => api.spreadsheets.batchUpdate({ spreadsheetId, requestBody: { requests } });
const write = (range, ...values) =>
  api.spreadsheets.values.update({ spreadsheetId, range, valueInputOption: "RAW", requestBody: { values } });
const read = async (range, more = {}) => (await api.spreadsheets.values.get({ spreadsheetId, range, ...more })).data.values;

const steps = {
  "a spreadsheet has a time zone and a sheet": async () => {
    const { data } = await api.spreadsheets.get({ spreadsheetId });
    assert.equal(data.properties.timeZone, "Europe/Paris");
    assert.equal(data.sheets[0].properties.gridProperties.rowCount, 1000);
  },
  "RAW keeps a formula a text": async () => {
    await write("Sheet1!A1:B2", ["=1+1", "+33639980001"], ["x", 46054.5]);
    assert.deepEqual(await read("Sheet1!A1:B2", { valueRenderOption: "UNFORMATTED_VALUE" }), [["=1+1", "+33639980001"], ["x", 46054.5]]);
  },
  "a number with a date's format reads as a date": async () => {
    await change({
      repeatCell: {
        range: { sheetId: 0, startRowIndex: 1, startColumnIndex: 1, endColumnIndex: 2 },
        cell: { userEnteredFormat: { numberFormat: { type: "DATE_TIME", pattern: "yyyy-mm-dd hh:mm:ss" } } },
        fields: "userEnteredFormat.numberFormat",
      },
    });
    assert.deepEqual(await read("Sheet1!B2"), [["2026-02-01 12:00:00"]]);
    assert.deepEqual(await read("Sheet1!B2", { valueRenderOption: "UNFORMATTED_VALUE", dateTimeRenderOption: "SERIAL_NUMBER" }), [[46054.5]]);
  },
  "titles differ by more than letter case": async () => {
    await refused(/A sheet with the name "Sheet1" already exists/, () => change({ addSheet: { properties: { title: "SHEET1" } } }));
    assert.equal((await read("SHEET1!A2"))[0][0], "x");
  },
  "what is written under a merge is dropped": async () => {
    await change({ mergeCells: { range: { sheetId: 0, startRowIndex: 4, endRowIndex: 5, startColumnIndex: 0, endColumnIndex: 2 }, mergeType: "MERGE_ALL" } });
    await write("Sheet1!A5:C5", ["a", "b", "c"]);
    assert.deepEqual(await read("Sheet1!A5:C5"), [["a", "", "c"]]);
    const { data } = await api.spreadsheets.get({ spreadsheetId, fields: "sheets.merges" });
    assert.deepEqual(data.sheets[0].merges[0].startRowIndex, 4);
  },
  "protected cells are refused in Google's words": async () => {
    await change({ addProtectedRange: { protectedRange: { range: { sheetId: 0, startColumnIndex: 5, endColumnIndex: 6 } } } });
    await refused(/You are trying to edit a protected cell or object\./, () => write("Sheet1!E1:F1", ["a", "b"]));
    const { data } = await api.spreadsheets.get({ spreadsheetId, fields: "sheets.protectedRanges(range,requestingUserCanEdit)" });
    assert.equal(data.sheets[0].protectedRanges[0].requestingUserCanEdit ?? false, false);
  },
  "a strict rule refuses other values": async () => {
    await change({
      setDataValidation: {
        range: { sheetId: 0, startRowIndex: 1, startColumnIndex: 8, endColumnIndex: 9 },
        rule: { condition: { type: "ONE_OF_LIST", values: [{ userEnteredValue: "new" }] }, strict: true },
      },
    });
    await write("Sheet1!I2", ["new"]);
    await refused(/violates the data validation rules/, () => write("Sheet1!I2", ["other"]));
  },
  "ranges beyond the grid, and unknown tabs": async () => {
    await refused(/exceeds grid limits\. Max rows: 1000, max columns: 26/, () => write("Sheet1!A1001", ["a"]));
    await refused(/Unable to parse range: Nowhere!A1/, () => read("Nowhere!A1"));
  },
  "ten million cells": async () => {
    await refused(/above the limit of 10000000 cells/, () => change({ appendDimension: { sheetId: 0, dimension: "ROWS", length: 400000 } }));
  },
  "a filter, a table, a named range": async () => {
    await change(
      { setBasicFilter: { filter: { range: { sheetId: 0, endColumnIndex: 2 } } } },
      { addNamedRange: { namedRange: { name: "fence", range: { sheetId: 0, endRowIndex: 1, endColumnIndex: 1 } } } },
    );
    await api.spreadsheets.values.batchUpdate({ spreadsheetId, requestBody: { valueInputOption: "RAW", data: [{ range: "fence", values: [[null]] }] } });
    assert.equal((await read("Sheet1!A1"))[0][0], "=1+1");
  },
};

for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log("ok", name);
}
