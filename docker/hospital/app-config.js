/** Configuration of OHIF: one archive, the Orthanc behind the same address. */
window.config = {
  routerBasename: '/',
  extensions: [],
  modes: [],
  showStudyList: true,
  showCPUFallbackMessage: false,
  showErrorDetails: 'always',
  // shown at every start: neither OHIF nor liverseg is a medical device
  investigationalUseDialog: { option: 'always' },
  // a double click on a segmentation or a report opens it without a question
  disableConfirmationPrompts: true,
  customizationService: {
    global: {
      'ohif.tours': { $set: [] },
      // the viewer is read-only: measurements of a report are neither moved nor deleted by accident
      'panelMeasurement.disableEditing': { $set: true },
      'panelSegmentation.disableEditing': { $set: true },
    },
  },
  defaultDataSourceName: 'archive',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'archive',
      configuration: {
        friendlyName: 'liverseg archive',
        name: 'archive',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        wadoUriRoot: '/dicom-web',
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
